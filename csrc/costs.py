"""What code costs on a modelled machine, as plain data: the contract between lowering/cost.py, which knows the program, and
runtime/profile.py, which knows how often each of its parts ran.
"""

from __future__ import annotations

import dataclasses

from .isa import INSTRUCTIONS

__all__ = ["BUCKETS", "SCALAR_ROW", "BlockCost", "BufferUse", "CallCost", "KernelCost", "PartitionCost"]

# Index of scalar loads in the counters of a counting build; before it come the rows of isa.INSTRUCTIONS.
SCALAR_ROW = len(INSTRUCTIONS)

# Where cycles go. `issue`: what the number of instructions takes at the full issue width. A resource: what its use takes beyond
# that, where it is the busiest one. `dependency`: waiting for results beyond both. `fill`: filling and draining software-pipelined
# loops. `ddr`: waiting for memory beyond the near one.
BUCKETS = {
    "issue": "issue width",
    "load": "load ports",
    "store": "store ports",
    "address": "address slots of loads and stores together",
    "multiply": "multiply pipes",
    "shift": "shift pipe",
    "permute": "permute pipe",
    "compute": "multiply, shift and permute pipes together",
    "scalar": "scalar unit",
    "dependency": "results not ready",
    "fill": "filling and draining of pipelined loops",
    "ddr": "DDR bandwidth and latency",
}


@dataclasses.dataclass(frozen=True)
class BlockCost:
    """One execution of a basic block.

    Attributes:
        counts: (row, register operations) pairs; row as in the counters of a counting build.
        packets: packets that it issues.
        cycles: length of its list schedule: from the first packet until every result is there.
        buckets: (name in BUCKETS, cycles) pairs that sum to `cycles`.
        interval: for the body of an innermost loop the cycles between iterations that no modulo schedule goes below; else `cycles`.
        interval_buckets: as `buckets`, summing to `interval`.
        entries: how often the loop is entered: (index of a block of the same kernel, or -1 for the kernel's call; factor). None
            where that is not known: at least once where it runs.
        energy_pj: of its instructions and packets; neither leakage nor DDR.
        near_bytes: (parameter, bytes) pairs: what its loads and stores of a buffer move; masked ones count in full.
        registers: vector registers that it holds at once, at most, in the program's order; 64-bit values count twice.
    """

    counts: tuple[tuple[int, int], ...]
    packets: int
    cycles: int
    buckets: tuple[tuple[str, int], ...]
    interval: int
    interval_buckets: tuple[tuple[str, int], ...]
    entries: tuple[int, int] | None
    energy_pj: float
    near_bytes: tuple[tuple[str, int], ...]
    registers: int


@dataclasses.dataclass(frozen=True)
class KernelCost:
    """A kernel function: its name, what it computes, and its blocks in the order in which the C text numbers them."""

    name: str
    title: str
    blocks: tuple[BlockCost, ...]


@dataclasses.dataclass(frozen=True)
class BufferUse:
    """A buffer that a kernel call reads or writes.

    Attributes:
        param: the kernel's parameter that stands for it.
        name: the same for the same contents within a partition.
        bytes: its size: an int, or a str: a Python expression over the partition's symbols.
        kind: "input", "output" or "temp"; inputs come from DDR and outputs go there.
    """

    param: str
    name: str
    bytes: int | str
    kind: str
    is_read: bool
    is_written: bool


@dataclasses.dataclass(frozen=True)
class CallCost:
    """One kernel call of a partition: `kernel` is an index into PartitionCost.kernels, `nodes` are FX node names."""

    kernel: int
    name: str
    kind: str
    nodes: tuple[str, ...]
    buffers: tuple[BufferUse, ...]


@dataclasses.dataclass(frozen=True)
class PartitionCost:
    """A partition on a machine: its kernel functions in block-numbering order, and its calls in execution order."""

    kernels: tuple[KernelCost, ...]
    calls: tuple[CallCost, ...]
