"""The best chain of untrusted parts from every first cut on: dynamic programming over cuts and sets of devices.

A placement of nodes on devices whose parts can run one after the other is a chain of nested prefixes, each device with
one stretch between two of them (Tarnawski et al., "Efficient Algorithms for Device Placement of DNN Graph Operators",
NeurIPS 2020, section 5). Every stretch costs what it costs wherever the rest is, so the best way on from a cut depends
on the cut and on the devices that are left.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from siniantrust.planner._flow import FloatArray, IndexArray
from siniantrust.planner._spread import Stage
from siniantrust.planner._stretches import Stretches, StretchTable

Counts = tuple[int, ...]
# What rounding may add to a period that is then used as a bound.
_ROUNDING = 1e-12
# With more ways than this to give a stretch some of the devices left, replicas are devices of one kind only.
_MOST_WAYS = 2000


@dataclass(frozen=True)
class Crews:
    """The sets of devices that may be left, as counts per kind, and those that one stretch may take at once.

    ``replicated`` lets a stretch take several, which then share its requests.
    """

    sizes: Counts
    replicated: bool

    @cached_property
    def states(self) -> tuple[Counts, ...]:
        """All counts that may be left."""
        return tuple(itertools.product(*(range(size + 1) for size in self.sizes)))

    @cached_property
    def number(self) -> dict[Counts, int]:
        """The index of each state."""
        return {state: index for index, state in enumerate(self.states)}

    @cached_property
    def takings(self) -> tuple[Counts, ...]:
        """What one stretch may take."""
        single = [tuple(int(kind == other) for other in range(len(self.sizes))) for kind in range(len(self.sizes))]
        if not self.replicated:
            return tuple(single)
        ways = 1
        for size in self.sizes:
            ways *= (size + 1) * (size + 2) // 2
        if ways <= _MOST_WAYS:
            return self.states[1:]
        return tuple(
            tuple(count * one for one in unit)
            for unit, size in zip(single, self.sizes, strict=True)
            for count in range(1, size + 1)
        )

    def steps(self, taking: Counts) -> tuple[IndexArray, IndexArray]:
        """Return the states that have at least ``taking`` left, and what is left of each after it."""
        pairs = [
            (self.number[state], self.number[tuple(map(int.__sub__, state, taking))])
            for state in self.states
            if all(left >= taken for left, taken in zip(state, taking, strict=True))
        ]
        return np.asarray([pair[0] for pair in pairs], np.intp), np.asarray([pair[1] for pair in pairs], np.intp)


@dataclass(frozen=True)
class Chains:
    """The best way from every boundary to ``end``: ``value[state, boundary]`` in seconds, and the first step of it."""

    table: StretchTable
    crews: Crews
    end: int
    value: FloatArray
    next_end: IndexArray
    next_taking: IndexArray

    def state_of(self, allowed: Sequence[bool]) -> int:
        """Return the state in which all devices of the ``allowed`` kinds are left, and no other."""
        return self.crews.number[tuple(n if ok else 0 for n, ok in zip(self.crews.sizes, allowed, strict=True))]

    def follow(self, start: int, state: int) -> list[Stage]:
        """Return the stages of the best chain from ``start`` with the devices of ``state``, each's slowest first."""
        left = list(self.crews.states[state])
        names = [list(kind.names) for kind in self.table.kinds]
        stages = []
        while start != self.end:
            index = self.crews.number[tuple(left)]
            end, taking = int(self.next_end[index, start]), self.crews.takings[self.next_taking[index, start]]
            stretch = self.table.behind(start, 1 << end)
            latency_s, period_s = _seconds(stretch, taking)
            slowest_first = sorted(range(len(taking)), key=lambda kind: -stretch.latency_s[kind, 0])
            taken = [names[kind].pop(0) for kind in slowest_first for _ in range(taking[kind])]
            stages.append(Stage(start, end, tuple(taken), float(latency_s[0]), float(period_s[0])))
            left = [have - take for have, take in zip(left, taking, strict=True)]
            start = end
        return stages


def find_chains(table: StretchTable, *, end: int, within: int, longest_s: float | None, crews: Crews) -> Chains:
    """Find the best chain from every boundary to ``end``.

    Args:
        table: what stretches cost.
        end: the boundary to reach.
        within: mask of the boundaries that may be used, ``end`` among them.
        longest_s: None to make the longest period of a stage as short as can be; else the sum of all latencies, with
            no stage's period beyond this.
        crews: the devices.
    """
    flow = table.flow
    boundaries = [int(each) for each in flow.positions(within) if each != end]
    boundaries.sort(key=lambda each: (-flow.nodes_inside[each], each))
    shape = (len(crews.states), flow.whole + 1)
    value = np.full(shape, np.inf)
    value[:, end] = 0.0
    next_end = np.full(shape, -1, dtype=np.intp)
    next_taking = np.full(shape, -1, dtype=np.intp)
    steps = [crews.steps(taking) for taking in crews.takings]
    for boundary in boundaries:
        stretches = table.behind(boundary, within)
        if not len(stretches.ends):
            continue
        columns = _columns(stretches.ends)
        for number, (taking, (having, left)) in enumerate(zip(crews.takings, steps, strict=True)):
            latency_s, period_s = _seconds(stretches, taking)
            useful = np.isfinite(latency_s) if longest_s is None else period_s <= longest_s * (1 + _ROUNDING)
            spent_s = np.where(useful, period_s if longest_s is None else latency_s, np.inf)
            onward = value[left, columns] if isinstance(columns, slice) else value[np.ix_(left, columns)]
            reached = (
                np.maximum(onward, spent_s, out=onward) if longest_s is None else np.add(onward, spent_s, out=onward)
            )
            best = reached.argmin(axis=1)
            reached_s = reached[np.arange(len(left)), best]
            better = reached_s < value[having, boundary]
            rows = having[better]
            value[rows, boundary] = reached_s[better]
            next_end[rows, boundary] = stretches.ends[best[better]]
            next_taking[rows, boundary] = number
    return Chains(table, crews, end, value, next_end, next_taking)


def _columns(ends: IndexArray) -> slice | IndexArray:
    """Return ``ends`` as a slice where they follow one another, as they do in a chain: it is read much faster."""
    first, last = int(ends[0]), int(ends[-1])
    return slice(first, last + 1) if last - first + 1 == len(ends) else ends


def _seconds(stretches: Stretches, taking: Counts) -> tuple[FloatArray, FloatArray]:
    """Return latency (of the slowest) and period (answers of all together) of stretches on the devices taken."""
    rows = [kind for kind, count in enumerate(taking) if count]
    latency_s = stretches.latency_s[rows].max(axis=0)
    if sum(taking) == 1:
        return latency_s, latency_s
    counts = np.asarray([taking[kind] for kind in rows], dtype=np.float64)
    with np.errstate(divide="ignore"):  # a stretch that costs nothing has no period either
        rate = (counts[:, None] / stretches.latency_s[rows]).sum(axis=0)
        period_s = np.where(np.isfinite(latency_s), 1.0 / rate, np.inf)
    return latency_s, period_s
