"""Single-tensor cuts, all of them, in linear time; they also divide the graph into segments.

A value is a cut when every path from an input to an output runs through it (it dominates the outputs; Lengauer and
Tarjan 1979 treat the general problem). In a directed acyclic graph whose every vertex lies on such a path there is a
simpler test: *a value is on all paths if and only if, in any topological order, no edge jumps over it*. If none jumps,
no path gets past it. If the edge (a, b) jumps over it, then the path input ... a, b ... output avoids it, since
everything up to a stands before it in the order and everything from b on behind. So one sweep over the order finds
every such value, whichever order it is: those for which, just after their node, no other value is still to be read.

Nodes that depend on no input (random sources) lie on no such path and may stand anywhere. They are left out of the
sweep; afterwards a cut is dropped if one of them would be read on both sides of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from siniantrust.graph._flow import Flow


@dataclass(frozen=True)
class Chain:
    """The single-tensor cuts in order: each one's value, and the segment that each node belongs to.

    Node n is an ancestor of ``values[k]`` if and only if ``level[n] <= k``; the nodes behind the last cut have level
    ``len(values)``.
    """

    values: tuple[int, ...]
    level: tuple[int, ...]


def single_cuts(flow: Flow) -> Chain:
    """Return every legal single-tensor cut, also those whose tensor has no known shape."""
    candidates = _unjumped(flow)
    level = _levels(flow, candidates)
    blocked = [0] * (len(candidates) + 2)
    for value, producer in enumerate(flow.producer):
        if producer < 0 or flow.depends[producer]:
            continue
        levels = [level[reader] for reader in flow.readers[value]]
        last = len(candidates) if flow.is_output[value] else max(levels)
        blocked[min(levels, default=last)] += 1
        blocked[last] -= 1
    before = [0] * (len(candidates) + 1)
    for each in level:
        before[each] += 1
    values: list[int] = []
    crossing = count = 0
    for index, value in enumerate(candidates):
        crossing += blocked[index]
        count += before[index]
        if not crossing and count < flow.nodes:
            values.append(value)
    return Chain(tuple(values), tuple(_levels(flow, values)))


def _unjumped(flow: Flow) -> list[int]:
    """Return the values after whose node no other value that depends on an input is still to be read."""
    open_ends = [
        flow.nodes if flow.is_output[value] else (readers[-1] if readers else -1)
        for value, readers in enumerate(flow.readers)
    ]
    closes_at: list[int] = [0] * (flow.nodes + 1)
    live = 0
    for value in range(flow.inputs):
        if open_ends[value] >= 0:
            live += 1
            closes_at[open_ends[value]] += 1
    found: list[int] = []
    for node in range(flow.nodes):
        live -= closes_at[node]
        if not flow.depends[node]:
            continue
        for value in flow.makes[node]:
            live += 1
            closes_at[open_ends[value]] += 1
        if live == 1 and len(flow.makes[node]) == 1:
            found.append(flow.makes[node][0])
    return found


def _levels(flow: Flow, values: list[int]) -> list[int]:
    """Return for each node the first of ``values`` that it is an ancestor of; ``len(values)`` if of none."""
    level = [len(values)] * flow.nodes
    for index, value in enumerate(values):
        level[flow.producer[value]] = index
    for node in reversed(range(flow.nodes)):
        for value in flow.makes[node]:
            for reader in flow.readers[value]:
                level[node] = min(level[node], level[reader])
    return level
