"""The best chain of untrusted parts from every first cut on: dynamic programming over cuts and sets of devices.

A placement of nodes on devices whose parts can run one after the other is a chain of nested prefixes, each device with
one stretch between two of them (Tarnawski et al., "Efficient Algorithms for Device Placement of DNN Graph Operators",
NeurIPS 2020, section 5). Every stretch costs what it costs wherever the rest is, so the best way on from a cut depends
on the cut and on the devices that are left. Steps are taken a tile of pairs of cuts at a time, and a tile is only
looked into where a bound says that it may hold something better (branch and bound; Land and Doig, Econometrica 1960).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from siniantrust.planner._crews import Counts, Crews
from siniantrust.planner._flow import FloatArray, IndexArray
from siniantrust.planner._line import Band, Line
from siniantrust.planner._spread import Stage

# What rounding may add to a period that is then used as a bound.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Chains:
    """The best way from every position of ``line`` to its end, per set of devices left, and the first step of it.

    ``value[state, position]`` is in seconds: the longest period of a stage, or the sum of latencies.
    """

    line: Line
    crews: Crews
    value: FloatArray
    next_position: IndexArray
    next_taking: IndexArray

    def state_of(self, allowed: Sequence[bool]) -> int:
        """Return the state in which all devices of the ``allowed`` kinds are left, and no other."""
        return self.crews.number[tuple(n if ok else 0 for n, ok in zip(self.crews.sizes, allowed, strict=True))]

    def follow(self, position: int, state: int) -> list[Stage]:
        """Return the stages of the best chain from ``position`` with the devices of ``state``, each's slowest first."""
        table, order = self.line.table, self.line.order
        left = list(self.crews.states[state])
        names = [list(kind.names) for kind in table.kinds]
        stages = []
        while position < len(order) - 1:
            index = self.crews.number[tuple(left)]
            after, taking = (
                int(self.next_position[index, position]),
                self.crews.takings[self.next_taking[index, position]],
            )
            kinds_s = table.behind(int(order[position]), order[after : after + 1])
            latency_s, period_s = _together(kinds_s, taking)
            slowest_first = sorted(range(len(taking)), key=lambda kind: -kinds_s[kind, 0])
            taken = [names[kind].pop(0) for kind in slowest_first for _ in range(taking[kind])]
            stage = (int(order[position]), int(order[after]), tuple(taken), float(latency_s[0]), float(period_s[0]))
            stages.append(Stage(*stage))
            left = [have - take for have, take in zip(left, taking, strict=True)]
            position = after
        return stages


def find_chains(line: Line, *, longest_s: float | None, crews: Crews) -> Chains:
    """Find the best chain from every position of ``line`` to its end.

    Args:
        line: the boundaries that may be used.
        longest_s: None to make the longest period of a stage as short as can be; else the sum of all latencies, with
            no stage's period beyond this.
        crews: the devices.
    """
    search = _Search(line, crews, longest_s)
    for number in reversed(range(len(line.tiles))):
        search.settle(number)
    return Chains(line, crews, search.value, search.next_position, search.next_taking)


class _Search:
    """Values that are final for the tiles that were settled, and what bounds need to know of them."""

    def __init__(self, line: Line, crews: Crews, longest_s: float | None) -> None:
        states, positions = len(crews.states), len(line.order)
        self._line = line
        self._crews = crews
        self._longest_s = None if longest_s is None else longest_s * (1 + _ROUNDING)
        self.value = np.full((states, positions), np.inf)
        self.value[:, -1] = 0.0
        self.next_position = np.full((states, positions), -1, dtype=np.intp)
        self.next_taking = np.full((states, positions), -1, dtype=np.intp)
        self._least_s = np.full((states, len(line.tiles)), np.inf)
        self._least_with_tail_s = np.full((len(line.table.kinds), states, len(line.tiles)), np.inf)

    def settle(self, number: int) -> None:
        """Find the best steps from the positions of a tile; the tiles behind it are settled."""
        band = self._line.band(number)
        least_s = [_together(band.least_s, taking)[1] for taking in self._crews.takings]
        tile = self._line.tiles[number]
        for state, steps in enumerate(self._crews.steps):
            for taking, left in steps:
                self._step(band, state, taking, left, least_s[taking])
            value = self.value[state, tile]
            self._least_s[state, number] = value.min()
            self._least_with_tail_s[:, state, number] = (self._line.tails_s[:, tile] + value).min(axis=1)

    def _step(self, band: Band, state: int, taking: int, left: int, period_s: FloatArray) -> None:
        """Let a stretch take devices, in all tiles that may be worth it; ``period_s`` bounds its period from below."""
        found = self.value[state, band.rows]
        bound = self._bound(band, taking, left, period_s)
        lowest = bound.min(axis=0, initial=np.inf)
        for offset in np.argsort(lowest, kind="stable"):
            if lowest[offset] >= found.max(initial=-np.inf):
                return
            if (bound[:, offset] < found).any():
                self._look_into(band, state, taking, left, band.first + int(offset))

    def _bound(self, band: Band, taking: int, left: int, period_s: FloatArray) -> FloatArray:
        onward_s = self._least_s[left, band.first :]
        if self._longest_s is None:
            either: FloatArray = np.maximum(period_s, onward_s)
            return either
        kinds = [kind for kind, count in enumerate(self._crews.takings[taking]) if count]
        joined_s = self._line.heads_s[kinds, band.rows, None] + self._least_with_tail_s[kinds, left, None, band.first :]
        latency_s = joined_s.max(axis=0) - self._line.slack_s
        return np.where(period_s > self._longest_s, np.inf, np.where(band.open, latency_s, onward_s))

    def _look_into(self, band: Band, state: int, taking: int, left: int, last: int) -> None:
        latency_s, period_s = _together(band.latency_s(last), self._crews.takings[taking])
        onward_s, columns = self.value[left], self._line.tiles[last]
        if self._longest_s is None:
            reached = np.maximum(period_s, onward_s[columns])
        else:
            reached = np.where(period_s <= self._longest_s, latency_s, np.inf) + onward_s[columns]
        best = reached.argmin(axis=1)
        reached_s = reached[np.arange(len(best)), best]
        better = np.flatnonzero(reached_s < self.value[state, band.rows])
        positions = band.rows.start + better
        self.value[state, positions] = reached_s[better]
        self.next_position[state, positions] = columns.start + best[better]
        self.next_taking[state, positions] = taking


def _together(kinds_s: FloatArray, taking: Counts) -> tuple[FloatArray, FloatArray]:
    """Return latency (of the slowest) and period (answers of all together) of stretches on the devices taken.

    ``kinds_s`` are the seconds of one device of each kind. Bounds from below give bounds from below.
    """
    kinds = [kind for kind, count in enumerate(taking) if count]
    latency_s: FloatArray = kinds_s[kinds].max(axis=0) if len(kinds) > 1 else kinds_s[kinds[0]]
    if sum(taking) == 1:
        return latency_s, latency_s
    with np.errstate(divide="ignore"):  # a stretch that costs nothing has no period either
        rate = sum((taking[kind] / kinds_s[kind] for kind in kinds), np.zeros(latency_s.shape))
        period_s = np.where(np.isfinite(latency_s), 1.0 / rate, np.inf)
    return latency_s, period_s
