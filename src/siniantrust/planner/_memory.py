"""Peak memory of every prefix and of every suffix, near linear in the graph.

A prefix whose nodes come first in the model's order lives through the same tensors as the whole model does up to there,
so one running maximum serves all of those (nearly all cuts of real networks). The others are simulated side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from siniantrust.planner._flow import FloatArray, Flow, IndexArray, union


def peak_bytes_per_cut(flow: Flow) -> tuple[FloatArray, FloatArray]:
    """Return the peak bytes of every prefix and of the nodes outside it: weights and the most activations alive.

    A tensor is alive from its making (or from the start, where it enters) to its last reader; one that leaves stays.
    A node holds its inputs and outputs together. Weights that several nodes read count once for each: the figure
    is an upper bound. Outside the whole model there is nothing, which counts 0.
    """
    live = flow.live_bytes
    running = np.maximum.accumulate(live)
    remaining = np.maximum.accumulate(live[::-1])[::-1]
    counts = flow.nodes_inside.astype(np.intp)
    before = np.where(counts > 0, running[np.maximum(counts - 1, 0)], 0.0)
    after = np.where(counts < len(live), remaining[np.minimum(counts, len(live) - 1)], 0.0)
    odd = _not_first(flow, counts)
    if len(odd):
        before[odd] = _simulate(flow, odd, lambda mask: mask)
        after[odd] = _simulate(flow, odd, lambda mask: mask ^ flow.everywhere)
    return before + flow.weights, after + (flow.weights[flow.whole] - flow.weights)


def _not_first(flow: Flow, counts: IndexArray) -> IndexArray:
    """Return the prefixes whose nodes are not the first ones in the model's order."""
    nodes, prefixes, signs = flow.changes
    reach = np.full(flow.whole + 1, -1, dtype=np.intp)
    # The last node of a prefix is the highest among those that are inside; each node is inside over whole runs of
    # prefixes, so it is enough to look at where runs begin and end.
    entering: dict[int, list[int]] = {}
    for node, prefix, sign in zip(nodes.tolist(), prefixes.tolist(), signs.tolist(), strict=True):
        entering.setdefault(prefix, []).append(node if sign > 0 else ~node)
    inside: dict[int, None] = {}
    highest = -1
    for prefix in range(flow.whole + 1):
        for change in entering.get(prefix, ()):
            if change >= 0:
                inside[change] = None
                highest = max(highest, change)
            else:
                del inside[~change]
                if ~change == highest:
                    highest = max(inside, default=-1)
        reach[prefix] = highest
    return np.flatnonzero(reach + 1 != counts)


def peak_bytes_between(flow: Flow, start: int, ends: IndexArray, *, limit_bytes: int) -> FloatArray:
    """Return the peak bytes of the nodes from the cut ``start`` to each of ``ends``, weights included.

    Where the weights alone are beyond ``limit_bytes``, or even everything alive in the whole model would fit, that
    bound is returned instead: which side of the limit it is on is certain.
    """
    weights = flow.weights[ends] - flow.weights[start]
    most = float(flow.live_bytes.max(initial=0.0))
    peak: FloatArray = np.where(weights > limit_bytes, weights, weights + most)
    unsure = np.flatnonzero((weights <= limit_bytes) & (weights + most > limit_bytes))
    if len(unsure):
        alive = _simulate(flow, ends[unsure], lambda mask: 0 if mask >> start & 1 else mask)
        peak[unsure] = weights[unsure] + alive
    return peak


def _simulate(flow: Flow, columns: IndexArray, inside: Callable[[int], int]) -> FloatArray:
    """Run through the nodes in order with one running total for each of ``columns``.

    ``inside`` turns a node's mask of prefixes into the mask of the columns for which it runs.
    """
    model = flow.model
    inputs = {tensor.name for tensor in model.inputs}
    kept = {tensor.name for tensor in model.outputs}
    live = np.zeros(len(columns))
    entering: dict[str, int] = {}
    for name, readers in flow.read.items():
        mask = union(map(inside, readers)) & (flow.everywhere if name in inputs else ~inside(flow.made[name]))
        if mask:
            entering[name] = mask
            live += flow.size(name) * flow.at(mask, columns)
    later = {name: _unions_behind([inside(reader) for reader in flow.read[name]]) for name in entering}
    peak = live.copy()
    for node in model.nodes:
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


def _unions_behind(masks: Sequence[int]) -> Iterator[int]:
    """Yield, for each mask, the union of those behind it."""
    found = [0]
    for mask in reversed(masks):
        found.append(found[-1] | mask)
    return iter(found[-2::-1])
