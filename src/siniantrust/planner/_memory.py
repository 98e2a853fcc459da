"""Peak memory of every prefix and of every suffix, near linear in the graph.

A prefix whose nodes come first in the model's order lives through the same tensors as the whole model does up to there,
so one running maximum serves all of those (nearly all cuts of real networks). The others are simulated side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siniantrust.graph import Model
from siniantrust.planner._flow import FloatArray, Flow, IndexArray, union


def peak_bytes_per_cut(flow: Flow) -> tuple[FloatArray, FloatArray]:
    """Return the peak bytes of every prefix and of the nodes outside it: weights and the most activations alive.

    A tensor is alive from its making (or from the start, where it enters) to its last reader; one that leaves stays.
    A node holds its inputs and outputs together. Weights that several nodes read count once for each: the figure
    is an upper bound. Outside the whole model there is nothing, which counts 0.
    """
    model = flow.model
    live = _live_bytes(flow)
    running = np.maximum.accumulate(live)
    remaining = np.maximum.accumulate(live[::-1])[::-1]
    counts = flow.nodes_inside.astype(np.intp)
    before = np.where(counts > 0, running[np.maximum(counts - 1, 0)], 0.0)
    after = np.where(counts < len(live), remaining[np.minimum(counts, len(live) - 1)], 0.0)
    odd = _not_first(flow, counts)
    if len(odd):
        before[odd] = _simulate(flow, odd, after=False)
        after[odd] = _simulate(flow, odd, after=True)
    weights = flow.summed([node.parameter_bytes for node in model.nodes])
    return before + weights, after + (weights[flow.whole] - weights)


def _live_bytes(flow: Flow) -> FloatArray:
    """Return the bytes alive while each node of the whole model runs."""
    model = flow.model
    dying = _dying(model)
    kept = {tensor.name for tensor in model.outputs}
    current = sum(tensor.size_bytes for tensor in model.inputs)
    live = np.zeros(len(model.nodes))
    for node in model.nodes:
        current += sum(map(flow.size, node.outputs))
        live[node.index] = current
        current -= sum(flow.size(name) for name in dying[node.index] if name not in kept)
    return live


def _dying(model: Model) -> Sequence[Sequence[str]]:
    """List, per node, the tensors that nothing reads after it: those it reads last, and those it makes for nobody."""
    last = {tensor.name: 0 for tensor in model.inputs}
    for node in model.nodes:
        last.update(dict.fromkeys(node.outputs, node.index))
        last.update({name: node.index for name in node.inputs if name in last})
    dying: list[list[str]] = [[] for _ in model.nodes]
    for name, index in last.items():
        dying[index].append(name)
    return dying


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


def _simulate(flow: Flow, columns: IndexArray, *, after: bool) -> FloatArray:
    """Run through the nodes in order with one running total for each of the prefixes ``columns``."""
    model = flow.model
    side = flow.everywhere if after else 0
    inputs = {tensor.name for tensor in model.inputs}
    kept = {tensor.name for tensor in model.outputs}
    dying = _dying(model)
    live = np.zeros(len(columns))
    held: dict[str, int] = {}
    for name, readers in flow.read.items():
        entering = union(reader ^ side for reader in readers)
        if name not in inputs:
            entering &= ~(flow.made[name] ^ side)
        if entering:
            held[name] = entering
            live += flow.size(name) * flow.at(entering, columns)
    peak = live.copy()
    for node in model.nodes:
        mask = flow.node_masks[node.index] ^ side
        for name in node.outputs:
            held[name] = held.get(name, 0) | mask
            live += flow.size(name) * flow.at(mask, columns)
        np.maximum(peak, live, out=peak)
        for name in dying[node.index]:
            leaving = flow.everywhere if name in kept else union(~(r ^ side) for r in flow.read.get(name, ()))
            made_here = 0 if name in inputs else flow.made[name] ^ side
            live -= flow.size(name) * flow.at(held.get(name, 0) & ~(made_here & leaving), columns)
    return peak
