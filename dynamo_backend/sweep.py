"""accel.sweep: one function on many machines, as a table of cycles, energy and what bounds it."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from .csrc.machine import COST_FIELDS, Machine
from .errors import OptionError
from .options import Options

if TYPE_CHECKING:
    from .profile_report import Profile

__all__ = ["Point", "Sweep", "sweep"]


@dataclasses.dataclass(frozen=True)
class Point:
    """One machine of a sweep: the fields in which it differs from the others, and the profile on it."""

    settings: Mapping[str, object]
    profile: Profile

    def to_dict(self) -> dict:
        """The point as JSON-ready data."""
        total = self.profile.total
        names = ("cycles", "pipelined_cycles", "n_instructions", "energy_pj", "near_bytes", "ddr_bytes", "bound_by")
        costs = {name: getattr(total, name) if total else 0 for name in names}
        milliseconds = costs["cycles"] / self.profile.machine.clock_mhz / 1000
        return {"settings": dict(self.settings), **costs, "milliseconds": milliseconds, "buckets": dict(total.buckets) if total else {}}


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The points of a sweep, in the order in which they were asked for: print it, walk it, or write it as JSON."""

    name: str
    points: tuple[Point, ...]

    def to_dict(self) -> dict:
        """Everything as JSON-ready data; the keys are part of the public interface."""
        return {"name": self.name, "points": [point.to_dict() for point in self.points]}

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent)

    def __str__(self) -> str:
        from .profile_text import amount
        from .report_text import aligned

        fields = list(self.points[0].settings) if self.points else []
        rows = [(*fields, "cycles", "ms", "against the first", "pipelined", "instructions", "energy", "DDR B", "waits for DDR", "bound by")]
        told = [point.to_dict() for point in self.points]
        for point in told:
            ratio = f"{told[0]['cycles'] / max(1, point['cycles']):.2f} x"
            counts = [amount(point[name]).strip() for name in ("pipelined_cycles", "n_instructions")]
            waits = f"{100 * point['buckets'].get('ddr', 0) / max(1, point['cycles']):.0f} %"
            tail = (f"{amount(point['energy_pj'] * 1e-12)}J", amount(point["ddr_bytes"]).strip(), waits, str(point["bound_by"]))
            rows.append((*map(str, point["settings"].values()), amount(point["cycles"]).strip(), f"{point['milliseconds']:.3g}", ratio, *counts, *tail))
        return "\n".join([f"{self.name} on {len(self.points)} machines", *aligned(rows, left=(len(rows[0]) - 1,))])


def sweep(
    fn: Callable, machines: Mapping[str, Sequence] | Sequence[str | Machine], *, machine: str | Machine = "dvx-h1", dynamic: bool | None = None,
    mode: str | None = None, **options: object,
) -> Callable[..., Sweep]:  # fmt: skip
    """Profile `fn` on many machines: `sweep(model, {"vlen_bytes": [32, 64, 128]})(*inputs)`.

    The function is compiled and run once for every machine that needs other code; the rest is priced from the same counts.

    Args:
        machines: field of Machine -> its values, all combinations of them, the last field changing fastest; or machines.
        machine: what the fields that are not named are taken from.   dynamic, mode, options: as for torch.compile.

    Returns:
        A callable that takes the arguments of `fn` and returns a Sweep.

    Raises:
        OptionError: an unknown field, machine, mode or option, or a bad value.
    """
    parsed = Options.parse({"machine": machine, **options}, mode)
    wanted = _combinations(machines, parsed.machine) if isinstance(machines, Mapping) else _named(machines)

    def run(*args: object, **kwargs: object) -> Sweep:
        from .explain import name_of
        from .profile_compiler import Recording, record
        from .profile_report import make_profile

        recordings: dict[Machine, Recording] = {}
        points = []
        for settings, target in wanted:
            code = _code_machine(target, parsed.machine)
            if code not in recordings:
                recordings[code] = record(fn, args, kwargs, dataclasses.replace(parsed, machine=code), dynamic)
            points.append(Point(settings, make_profile(recordings[code], target)))
        return Sweep(name_of(fn), tuple(points))

    return run


def _code_machine(target: Machine, base: Machine) -> Machine:
    """The machine that `target` shares its code with: `base` where only the cost model reads a field."""
    return dataclasses.replace(target, **{field: getattr(base, field) for field in COST_FIELDS})


def _named(machines: Sequence[str | Machine]) -> list[tuple[dict[str, object], Machine]]:
    resolved = [Options.parse({"machine": machine}).machine for machine in machines]
    return [({"machine": machine.name}, machine) for machine in resolved]


def _combinations(fields: Mapping[str, Sequence], base: Machine) -> list[tuple[dict[str, object], Machine]]:
    known = [field.name for field in dataclasses.fields(Machine) if field.name != "name"]
    for name in fields:
        if name not in known:
            raise OptionError(f"accel: a machine has no field {name!r}; fields: {', '.join(known)}")
    found = []
    for values in itertools.product(*fields.values()):
        settings = dict(zip(fields, values))
        try:
            found.append((settings, dataclasses.replace(base, name=f"{base.name} with {settings}", **settings)))
        except (TypeError, ValueError) as error:
            raise OptionError(f"accel: no machine with {settings}: {error}") from error
    return found
