"""VLIW packets: the list schedule of a basic block on a machine, and the bounds of its modulo schedules.

BlockGraph -> PacketSchedule. A packet issues at most `issue_width` instructions, at most `address_slots` of them loads and stores,
and no pipe is held twice (Hexagon's rules; an ANY instruction takes the shift pipe if it is free, else permute, else multiply). The
schedule is greedy: in each cycle the ready instructions with the longest way to go come first.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterable, Sequence

from ..csrc.machine import Machine
from .dependence import BlockGraph, Issue

__all__ = ["COMPUTE_PIPES", "PacketSchedule", "pipe_counts", "recurrence_bound", "resource_bounds", "schedule_block"]

COMPUTE_PIPES = ("SHF", "PRM", "MPY")  # in the order in which ANY instructions take them
BUCKET_OF_PIPE = {"LD": "load", "ST": "store", "MPY": "multiply", "SHF": "shift", "PRM": "permute", "SCL": "scalar"}


@dataclasses.dataclass(frozen=True)
class PacketSchedule:
    """When each instruction issues, in cycles from the block's start; `cycles` lasts until every result is there."""

    starts: tuple[int, ...]
    cycles: int

    @property
    def packets(self) -> list[list[int]]:
        """The instructions of each packet, in order of issue; cycles without one are left out."""
        by_start: dict[int, list[int]] = {}
        for number, start in enumerate(self.starts):
            by_start.setdefault(start, []).append(number)
        return [by_start[start] for start in sorted(by_start)]


def pipe_counts(machine: Machine) -> dict[str, int]:
    """How many pipes of each kind one context has."""
    return {
        "LD": machine.load_pipes, "ST": machine.store_pipes, "MPY": machine.fma_pipes, "SHF": machine.shift_pipes,
        "PRM": machine.permute_pipes, "SCL": machine.scalar_pipes,
    }  # fmt: skip


def schedule_block(graph: BlockGraph, machine: Machine) -> PacketSchedule:
    """The greedy list schedule of `graph`."""
    waiting = [len(edges) for edges in graph.edges]
    followers: list[list[tuple[int, int, str]]] = [[] for _ in graph.issues]
    for consumer, edges in enumerate(graph.edges):
        for edge in edges:
            followers[edge.producer].append((consumer, edge.latency, edge.forward))
    height = _heights(graph.issues, followers)
    earliest = [0] * len(graph.issues)
    starts = [-1] * len(graph.issues)
    pipes = _Pipes(machine)
    ready = [(0, -height[n], n) for n, count in enumerate(waiting) if count == 0]  # (cycle, priority, instruction)
    heapq.heapify(ready)
    cycle = 0
    while ready:
        cycle = max(cycle, ready[0][0])
        packet = _Packet(graph, pipes, cycle)
        candidates = [(-height[n], n) for n in _pop_until(ready, cycle)]
        heapq.heapify(candidates)
        while candidates:
            _, number = heapq.heappop(candidates)
            if not packet.take(number, starts):
                heapq.heappush(ready, (cycle + 1, -height[number], number))
                continue
            starts[number] = cycle
            for consumer, latency, forward in followers[number]:
                waiting[consumer] -= 1
                earliest[consumer] = max(earliest[consumer], cycle + (0 if forward else latency))
                if waiting[consumer] == 0:
                    now = earliest[consumer] <= cycle
                    heapq.heappush(candidates if now else ready, (-height[consumer], consumer) if now else (earliest[consumer], -height[consumer], consumer))
        packet.issue()
        cycle += 1
    return PacketSchedule(tuple(starts), max((start + issue.cycles for start, issue in zip(starts, graph.issues)), default=0))


def _pop_until(ready: list, cycle: int) -> Iterable[int]:
    while ready and ready[0][0] <= cycle:
        yield heapq.heappop(ready)[2]


def _heights(issues: Sequence[Issue], followers: Sequence[Sequence[tuple[int, int, str]]]) -> list[int]:
    """Cycles from each instruction's issue to the end of the longest chain behind it."""
    height = [issue.cycles for issue in issues]
    for number in reversed(range(len(issues))):
        for consumer, latency, _ in followers[number]:
            height[number] = max(height[number], latency + height[consumer])
    return height


class _Pipes:
    """Until which cycle each pipe is held."""

    def __init__(self, machine: Machine):
        self.machine = machine
        self.free_at = {name: [0] * count for name, count in pipe_counts(machine).items()}

    def free(self, name: str, cycle: int) -> int:
        return sum(until <= cycle for until in self.free_at[name])

    def hold(self, name: str, cycle: int, occupancy: int) -> None:
        place = next(i for i, until in enumerate(self.free_at[name]) if until <= cycle)
        self.free_at[name][place] = cycle + occupancy


class _Packet:
    """The packet of one cycle while it is being filled."""

    def __init__(self, graph: BlockGraph, pipes: _Pipes, cycle: int):
        self.graph = graph
        self.pipes = pipes
        self.cycle = cycle
        self.numbers: list[int] = []
        self.current: int | None = None  # the load that this packet hands on (.cur)

    def take(self, number: int, starts: Sequence[int]) -> bool:
        """Whether the instruction fits into the packet; it is in it then."""
        handed = self._handed_on(number, starts)
        if handed is None or not self._fits([self.graph.issues[n] for n in (*self.numbers, number)]):
            return False
        self.current = handed if handed >= 0 else self.current
        self.numbers.append(number)
        return True

    def _handed_on(self, number: int, starts: Sequence[int]) -> int | None:
        """The load of this packet that the instruction takes by .cur, -1 for none; None if that is not possible."""
        handed = -1
        for edge in self.graph.edges[number]:
            if not edge.forward or self.cycle >= starts[edge.producer] + edge.latency or edge.forward == "new":
                continue
            if self.current not in (None, edge.producer) or handed not in (-1, edge.producer):
                return None
            handed = edge.producer
        return handed

    def _fits(self, issues: list[Issue]) -> bool:
        machine = self.pipes.machine
        if len(issues) > machine.issue_width or sum(issue.is_memory for issue in issues) > machine.address_slots:
            return False
        wanted = [pipe for issue in issues for pipe in issue.pipes]
        free = {name: self.pipes.free(name, self.cycle) - wanted.count(name) for name in self.pipes.free_at}
        return min(free.values()) >= 0 and sum(free[name] for name in COMPUTE_PIPES) >= wanted.count("ANY")

    def issue(self) -> None:
        """Hold the pipes of the packet's instructions: first those named, then what ANY instructions take, in program order."""
        issues = [self.graph.issues[number] for number in sorted(self.numbers)]
        for issue in issues:
            for name in issue.pipes:
                if name != "ANY":
                    self.pipes.hold(name, self.cycle, issue.occupancy)
        for issue in issues:
            if "ANY" in issue.pipes:
                name = next(name for name in COMPUTE_PIPES if self.pipes.free(name, self.cycle))
                self.pipes.hold(name, self.cycle, issue.occupancy)


def resource_bounds(issues: Sequence[Issue], machine: Machine) -> dict[str, int]:
    """Cycles that each resource (a bucket's name) needs for one pass over the instructions, whatever their order."""
    held = dict.fromkeys((*pipe_counts(machine), "ANY"), 0)
    for issue in issues:
        for pipe in issue.pipes:
            held[pipe] += issue.occupancy
    counts = pipe_counts(machine)
    bounds = {
        "issue": _ceil(len(issues), machine.issue_width),
        "address": _ceil(sum(issue.is_memory for issue in issues), machine.address_slots),
        "compute": _ceil(sum(held[name] for name in (*COMPUTE_PIPES, "ANY")), sum(counts[name] for name in COMPUTE_PIPES)),
    }
    return bounds | {BUCKET_OF_PIPE[name]: _ceil(held[name], count) for name, count in counts.items()}


def _ceil(n: int, d: int) -> int:
    return -(-n // d)


def recurrence_bound(graph: BlockGraph) -> int:
    """Least cycles between iterations that the loop's carried values allow: the greatest mean latency around a cycle of waits."""
    entries = sorted({consumer for _, consumer, _ in graph.carried})
    ways: dict[int, dict[int, int]] = {}  # from an entry to the entries one iteration on: the longest way
    for entry in entries:
        reach = _longest_from(graph, entry)
        for producer, consumer, latency in graph.carried:
            if producer in reach:
                ways.setdefault(entry, {})[consumer] = max(ways.get(entry, {}).get(consumer, 0), reach[producer] + latency)
    low, high = 0, max((length for targets in ways.values() for length in targets.values()), default=0)
    while low < high:
        middle = (low + high) // 2
        if _has_positive_cycle(ways, middle):
            low = middle + 1
        else:
            high = middle
    return low


def _longest_from(graph: BlockGraph, entry: int) -> dict[int, int]:
    """Longest waits from `entry` to every instruction behind it."""
    reach = {entry: 0}
    for number in range(entry + 1, len(graph.issues)):
        lengths = [reach[e.producer] + (0 if e.forward else e.latency) for e in graph.edges[number] if e.producer in reach]
        if lengths:
            reach[number] = max(lengths)
    return reach


def _has_positive_cycle(ways: dict[int, dict[int, int]], interval: int) -> bool:
    """Bellman-Ford: whether some cycle is longer than its iterations times `interval`."""
    distance = dict.fromkeys({*ways, *(target for targets in ways.values() for target in targets)}, 0)
    for _ in range(len(distance)):
        changed = False
        for start, targets in ways.items():
            for target, length in targets.items():
                if distance[start] + length - interval > distance[target]:
                    distance[target] = distance[start] + length - interval
                    changed = True
        if not changed:
            return False
    return True
