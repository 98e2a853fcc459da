"""Peak memory of prefixes, suffixes and stretches between, near linear in the graph.

Where the nodes of a prefix come first in the model's order, they live through the same tensors as they do in the whole
model, so running maxima serve all of those (nearly all cuts of real networks). The others are simulated side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from siniantrust.graph import Node
from siniantrust.planner._flow import BoolArray, FloatArray, Flow, IndexArray, union
from siniantrust.planner._traffic import answered_bytes, entering_bytes, tangled_with


@dataclass(frozen=True)
class Memory:
    """The most bytes alive at once, weights included, in parts of ``flow``.

    A tensor is alive from its making (or from the start, where it enters) to its last reader; one that leaves stays.
    A node holds its inputs and outputs together. Weights that several nodes read count once for each: the figure
    is an upper bound.
    """

    flow: Flow

    @cached_property
    def per_cut(self) -> tuple[FloatArray, FloatArray]:
        """Peak bytes of every prefix, and of the nodes outside it: outside the whole model there is nothing."""
        flow, live = self.flow, self.flow.live_bytes
        running = np.maximum.accumulate(live)
        remaining = np.maximum.accumulate(live[::-1])[::-1]
        before = np.where(self._counts > 0, running[np.maximum(self._counts - 1, 0)], 0.0)
        after = np.where(self._counts < len(live), remaining[np.minimum(self._counts, len(live) - 1)], 0.0)
        after = np.maximum(after - self._answered, 0.0)
        if len(odd := np.flatnonzero(~self._in_order)):
            before[odd] = _simulate(flow, flow.model.nodes, odd, lambda mask: mask)
        if len(odd := np.flatnonzero(~self._plain)):
            after[odd] = _simulate(flow, flow.model.nodes, odd, lambda mask: mask ^ flow.everywhere)
        return before + flow.weights, after + (flow.weights[flow.whole] - flow.weights)

    def between(self, start: int, ends: IndexArray, *, limit_bytes: int) -> FloatArray:
        """Return the peak bytes of the nodes from the cut ``start`` to each of ``ends``.

        Where a bound shows which side of ``limit_bytes`` it is on, that bound is returned instead.
        """
        flow = self.flow
        if len(ends) == 1 and ends[0] == flow.whole:
            return self.per_cut[1][start : start + 1]
        weights = flow.weights[ends] - flow.weights[start]
        peak: FloatArray = np.where(weights > limit_bytes, weights, weights + self._most(start, ends))
        unsure = (weights <= limit_bytes) & (peak > limit_bytes)
        if unsure.any() and self._plain[start]:
            first, stops = int(self._counts[start]), self._counts[ends]
            seen = self._most_alive(first, np.maximum(stops, first + 1)) - self._answered[start]
            known = self._in_order[ends] & unsure
            peak[known] = (weights + seen)[known]
            # What is alive there in the whole model, but not in the part, is there at the start and read after the end.
            least = np.where(flow.at(tangled_with(flow, start), ends), seen - self._entering[start], seen)
            unsure &= ~known | ((peak > limit_bytes) & (weights + least <= limit_bytes))
        columns = np.flatnonzero(unsure)
        if len(columns):
            first = int(self._counts[start]) if self._in_order[start] else 0
            nodes = flow.model.nodes[first : int(self._reach[ends[columns]].max()) + 1]
            alive = _simulate(flow, nodes, ends[columns], lambda mask: 0 if mask >> start & 1 else mask)
            peak[columns] = weights[columns] + alive
        return peak

    def fits(
        self, starts: IndexArray, ends: IndexArray, asked: BoolArray, *, limit_bytes: int, clear: bool
    ) -> BoolArray:
        """Say which of the stretches that are ``asked`` for, per start and end, need no more than ``limit_bytes``.

        ``clear`` says that nothing that is there at a start is read behind an end.
        """
        flow, live = self.flow, self.flow.live_bytes
        weights = flow.weights[ends] - flow.weights[starts, None]
        fitting: BoolArray = asked & (weights <= limit_bytes)
        unsure = fitting & (weights + self._most(starts[:, None], ends) > limit_bytes)
        if not unsure.any():
            return fitting
        begins, stops = self._counts[starts], self._counts[ends]
        middle = int(stops.min())
        if clear and self._plain[starts].all() and self._in_order[ends].all() and begins.max() < middle:
            # The most alive in a stretch across ``middle`` is the most of what is before it or of what is behind it.
            before = np.maximum.accumulate(live[begins.min() : middle][::-1])[::-1][begins - begins.min()]
            behind = np.maximum.accumulate(live[middle - 1 : stops.max()])[stops - middle]
            alive = np.maximum(before[:, None], behind) - self._answered[starts, None]
            fitting &= weights + alive <= limit_bytes
            return fitting
        for row in np.flatnonzero(unsure.any(axis=1)):
            columns = np.flatnonzero(unsure[row])
            peak = self.between(int(starts[row]), ends[columns], limit_bytes=limit_bytes)
            fitting[row, columns] = peak <= limit_bytes
        return fitting

    def _most_alive(self, first: int, stops: IndexArray) -> FloatArray:
        """Return the most bytes alive in the whole model from the node ``first`` to before each of ``stops``.

        Two overlapping runs whose length is a power of two cover any run (sparse table; Bender and Farach-Colton, "The
        LCA Problem Revisited", 2000).
        """
        levels = np.log2(stops - first).astype(np.intp)
        table = self._powers
        most: FloatArray = np.maximum(table[levels, first], table[levels, stops - (1 << levels)])
        return most

    @cached_property
    def _powers(self) -> FloatArray:
        """The most bytes alive in the runs of 1, 2, 4, … nodes from each node on."""
        rows = [self.flow.live_bytes]
        while (span := 1 << len(rows)) <= len(rows[0]):
            half = rows[-1]
            rows.append(np.append(np.maximum(half[: -span // 2], half[span // 2 :]), np.zeros(span // 2)))
        return np.stack(rows)

    def _most(self, starts: int | IndexArray, ends: IndexArray) -> FloatArray:
        """Bound the bytes alive from above: by those of the whole model where it runs the nodes in this order."""
        same = self._in_order[starts] & self._in_order[ends]
        return np.where(same, *self._bounds)

    @cached_property
    def _bounds(self) -> tuple[float, float]:
        """The most bytes alive at once in the whole model, and the bytes of all its tensors."""
        sizes = [tensor.size_bytes for tensor in self.flow.model.tensors.values()]
        return float(self.flow.live_bytes.max(initial=0.0)), float(sum(sizes))

    @cached_property
    def _counts(self) -> IndexArray:
        return self.flow.nodes_inside.astype(np.intp)

    @cached_property
    def _reach(self) -> IndexArray:
        """The last node of every prefix."""
        nodes, prefixes, signs = self.flow.changes
        reach = np.full(self.flow.whole + 1, -1, dtype=np.intp)
        # Each node is inside over whole runs of prefixes, so it is enough to look at where runs begin and end.
        entering: dict[int, list[int]] = {}
        for node, prefix, sign in zip(nodes.tolist(), prefixes.tolist(), signs.tolist(), strict=True):
            entering.setdefault(prefix, []).append(node if sign > 0 else ~node)
        inside: dict[int, None] = {}
        highest = -1
        for prefix in range(self.flow.whole + 1):
            for change in entering.get(prefix, ()):
                if change >= 0:
                    inside[change] = None
                    highest = max(highest, change)
                else:
                    del inside[~change]
                    if ~change == highest:
                        highest = max(inside, default=-1)
            reach[prefix] = highest
        return reach

    @cached_property
    def _in_order(self) -> BoolArray:
        """Whether the nodes of a prefix are the first ones in the model's order."""
        in_order: BoolArray = self._reach + 1 == self._counts
        return in_order

    @cached_property
    def _plain(self) -> BoolArray:
        """Whether a prefix is in order, and no output of the model that it makes is read behind it too."""
        flow = self.flow
        both = union(flow.made_in(tensor.name) & flow.read_after(tensor.name) for tensor in flow.model.outputs)
        return self._in_order & ~flow.at(both, np.arange(flow.whole + 1))

    @cached_property
    def _answered(self) -> FloatArray:
        return answered_bytes(self.flow)

    @cached_property
    def _entering(self) -> FloatArray:
        return entering_bytes(self.flow)


def _simulate(flow: Flow, nodes: Sequence[Node], columns: IndexArray, inside: Callable[[int], int]) -> FloatArray:
    """Run through ``nodes``, which follow one another, with one running total for each of ``columns``.

    ``inside`` turns a node's mask of prefixes into the mask of the columns for which it runs; no other nodes may run.
    """
    model = flow.model
    inputs = {tensor.name for tensor in model.inputs}
    kept = {tensor.name for tensor in model.outputs}
    live = np.zeros(len(columns))
    entering: dict[str, int] = {}
    readers = _readers(flow, nodes, inside)
    for name, masks in readers.items():
        mask = union(masks) & (flow.everywhere if name in inputs else ~inside(flow.made[name]))
        if mask:
            entering[name] = mask
            live += flow.size(name) * flow.at(mask, columns)
    later = {name: _unions_behind(readers[name]) for name in entering}
    peak = live.copy()
    for node in nodes:
        mask = inside(flow.node_masks[node.index])
        for name in node.outputs:
            live += flow.size(name) * flow.at(mask, columns)
        np.maximum(peak, live, out=peak)
        for name in dict.fromkeys(node.inputs):
            if name in entering:
                live -= flow.size(name) * flow.at(entering[name] & mask & ~next(later[name]), columns)
        for name in flow.dying[node.index]:
            if name not in inputs:
                stays = (
                    flow.everywhere if name in kept else union(~inside(reader) for reader in flow.read.get(name, ()))
                )
                live -= flow.size(name) * flow.at(inside(flow.made[name]) & ~stays, columns)
    return peak


def _readers(flow: Flow, nodes: Sequence[Node], inside: Callable[[int], int]) -> dict[str, list[int]]:
    """Return, per tensor, the masks of the columns for which each of its readers runs."""
    readers: dict[str, list[int]] = {}
    for node in nodes:
        for name in dict.fromkeys(node.inputs):
            if name in flow.read:
                readers.setdefault(name, []).append(inside(flow.node_masks[node.index]))
    return readers


def _unions_behind(masks: Sequence[int]) -> Iterator[int]:
    """Yield, for each mask, the union of those behind it."""
    found = [0]
    for mask in reversed(masks):
        found.append(found[-1] | mask)
    return iter(found[-2::-1])
