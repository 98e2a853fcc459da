"""Boundaries in a line, the smallest prefix first, and what lies between them, a tile of pairs at a time.

What crosses a boundary is mostly used up soon behind it. From there on the bytes that a stretch moves are those of its
first boundary plus those of its last, which gives whole tiles in one go, and bounds for tiles that nobody looks into.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from siniantrust.planner._flow import BoolArray, FloatArray, IndexArray
from siniantrust.planner._stretches import StretchTable
from siniantrust.planner._traffic import bytes_through, tangled_with

# Boundaries per side of a tile: as many as let one array operation take longer than its call.
_SIDE = 128
# What rounding may take from a bound, as a share of the largest running sum.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Line:
    """The boundaries ``within`` (a mask) up to ``end``, which comes last."""

    table: StretchTable
    end: int
    within: int

    @cached_property
    def order(self) -> IndexArray:
        """The boundaries; one that holds another stands behind it."""
        found = self.table.flow.positions(self.within & ~(1 << self.end))
        inside = self.table.flow.nodes_inside[found]
        return np.append(found[np.argsort(inside, kind="stable")], self.end)

    @cached_property
    def tiles(self) -> tuple[slice, ...]:
        """The positions of each tile."""
        return tuple(slice(at, min(at + _SIDE, len(self.order))) for at in range(0, len(self.order), _SIDE))

    @cached_property
    def clear(self) -> IndexArray:
        """Per position the first one from which on all hold this one, and nothing that crosses it crosses them."""
        flow = self.table.flow
        inside = flow.nodes_inside[self.order]
        clear = np.searchsorted(inside, inside, side="right")
        for position, boundary in enumerate(self.order[:-1].tolist()):
            tangled = flow.at(tangled_with(flow, boundary), self.order)
            if tangled.any():
                clear[position] = max(clear[position], len(tangled) - int(tangled[::-1].argmax()))
        return clear

    @cached_property
    def heads_s(self) -> FloatArray:
        """Per kind and position, what a stretch that begins there costs, less what ``tails_s`` counts of it."""
        table, order = self.table, self.order
        return np.stack(
            [
                kind.transfer.base_s
                + kind.transfer.seconds_per_byte_in * table.entering_bytes[order]
                - kind.transfer.seconds_per_byte_out * table.answered_bytes[order]
                - kind.compute_s[order]
                for kind in table.kinds
            ]
        )

    @cached_property
    def tails_s(self) -> FloatArray:
        """Per kind and position, what a stretch that ends there costs: heads and tails add up to its seconds."""
        table, order = self.table, self.order
        return np.stack(
            [
                kind.compute_s[order] + kind.transfer.seconds_per_byte_out * table.leaving_bytes[order]
                for kind in table.kinds
            ]
        )

    @cached_property
    def slack_s(self) -> float:
        """What a bound from heads and tails may be too high, since those are large and their sum is not."""
        return _ROUNDING * float(np.abs(self.heads_s).max() + np.abs(self.tails_s).max())

    @cached_property
    def places(self) -> dict[int, int]:
        """The position of each boundary."""
        return {boundary: position for position, boundary in enumerate(self.order.tolist())}

    def least(self, per_position: FloatArray) -> FloatArray:
        """Return the least of the last axis in each tile."""
        return np.minimum.reduceat(per_position, [tile.start for tile in self.tiles], axis=-1)

    def band(self, number: int) -> Band:
        """Return the stretches that begin in the tile ``number``."""
        return Band(self, number)


@dataclass(frozen=True)
class Band:
    """The stretches that begin in one tile (``first``), by the tile that they end in."""

    line: Line
    first: int
    _known: dict[int, FloatArray] = field(default_factory=dict)

    @property
    def rows(self) -> slice:
        """The positions where they begin: those of the tile but for the line's end."""
        tile = self.line.tiles[self.first]
        return slice(tile.start, min(tile.stop, len(self.line.order) - 1))

    @cached_property
    def open(self) -> BoolArray:
        """Whether bounds from heads and tails hold: per row, and tile from the first on."""
        starts = np.asarray([tile.start for tile in self.line.tiles[self.first :]])
        return self.line.clear[self.rows, None] <= starts

    @cached_property
    def impossible(self) -> BoolArray:
        """Whether a kind surely may have none of the stretches: per kind, row and tile from the first on."""
        order = self.line.order
        found = np.zeros((len(self.line.table.kinds), *self.open.shape), dtype=np.bool_)
        for refused, kind in zip(found, self.line.table.kinds, strict=True):
            for amount, most in self.line.table.limits(kind):
                least = self.line.least(amount[order])[self.first :]
                np.logical_or(refused, least - amount[order[self.rows], None] > most, out=refused)
        return found

    @cached_property
    def least_s(self) -> FloatArray:
        """Bound from below: the seconds of a kind, per kind, row and tile from the first on."""
        line = self.line
        least = line.heads_s[:, self.rows, None] + line.least(line.tails_s)[:, None, self.first :] - line.slack_s
        return np.where(self.impossible, np.inf, np.where(self.open, np.maximum(least, 0.0), 0.0))

    def latency_s(self, last: int) -> FloatArray:
        """Return the seconds that a kind takes up to each position of a tile: per kind, row and column."""
        if last not in self._known:
            self._known[last] = self._measure(self.line.tiles[last])
        return self._known[last]

    @cached_property
    def _near(self) -> list[tuple[FloatArray, FloatArray, BoolArray]]:
        """Per row, bytes in and out and what holds it, for the positions behind it that are not clear of it."""
        flow, order = self.line.table.flow, self.line.order
        near = []
        for position in range(self.rows.start, self.rows.stop):
            start, ends = int(order[position]), order[position + 1 : self.line.clear[position]]
            holds = flow.at(flow.contained_in[start] | 1 << flow.whole, ends) if len(ends) else ends.astype(np.bool_)
            holds &= flow.nodes_inside[ends] > flow.nodes_inside[start]
            near.append((*bytes_through(flow, start, ends), holds))
        return near

    def _measure(self, columns: slice) -> FloatArray:
        line, table = self.line, self.line.table
        starts, ends = line.order[self.rows], line.order[columns]
        bytes_in = np.repeat(table.entering_bytes[starts, None], len(ends), axis=1)
        bytes_out = table.leaving_bytes[ends] - table.answered_bytes[starts, None]
        nested = np.ones(bytes_in.shape, dtype=np.bool_)
        for row, position in enumerate(range(self.rows.start, self.rows.stop)):
            stop = min(columns.stop, int(line.clear[position]))
            behind = max(columns.start, position + 1)
            nested[row, : max(behind - columns.start, 0)] = False
            if behind < stop:
                into = slice(behind - columns.start, stop - columns.start)
                of = slice(behind - position - 1, stop - position - 1)
                for known, near in zip((bytes_in, bytes_out, nested), self._near[row], strict=True):
                    known[row, into] = near[of]
        clear = bool((line.clear[self.rows] <= columns.start).all())
        return table.seconds(starts, ends, (bytes_in, bytes_out), nested, clear=clear)
