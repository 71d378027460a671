"""Sweeps vector length and DDR bandwidth for MiniLM on a modelled DSP, and prints how the bottleneck moves between them.

Every vector length is another compilation; bandwidths are priced from the same counts. Cycles are a model's, not a product's.
"""

import argparse
import sys

import torch

import accel
import real_models

VECTOR_BYTES = (32, 64, 128, 256)
DDR_BYTES_PER_CYCLE = (2, 8, 32, 128)


def main(arguments=None):
    """Runs the sweep and prints its table and the grid of bottlenecks."""
    parser = argparse.ArgumentParser(description="Vector length against DDR bandwidth for the sentence model.")
    parser.add_argument("--machine", default="dvx-h1", help="what the other fields are taken from, default %(default)s")
    parser.add_argument("--sentences", type=int, default=5, help="how many sentences, default %(default)s")
    options = parser.parse_args(arguments)
    model, inputs, _ = real_models.sentence_embedder()
    inputs = tuple(tensor[: options.sentences] for tensor in inputs)
    fields = {"vlen_bytes": VECTOR_BYTES, "ddr_bytes_per_cycle": DDR_BYTES_PER_CYCLE}
    with torch.no_grad():
        swept = accel.sweep(model, fields, machine=options.machine)(*inputs)
    print(swept)
    print(f"\nwhat most cycles go to beside issuing, by vector bytes (down) and DDR bytes per cycle (across)\n{bottlenecks(swept)}")


def bottlenecks(swept):
    """A row per vector length, a column per bandwidth: milliseconds, and the bound of the whole model."""
    cells = {tuple(point.settings.values()): point.to_dict() for point in swept.points}
    lines = [" " * 8 + "".join(f"{bandwidth:>20}" for bandwidth in DDR_BYTES_PER_CYCLE)]
    for vector in VECTOR_BYTES:
        row = [cells[vector, bandwidth] for bandwidth in DDR_BYTES_PER_CYCLE]
        lines.append(f"{vector:8}" + "".join(f"{cell['bound_by'] + format(cell['milliseconds'], '8.1f') + ' ms':>20}" for cell in row))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
