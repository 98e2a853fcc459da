"""Which layers are worth a pad: the set of them that takes the trusted side least, as a minimum cut."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from siniantrust.graph import Model
from siniantrust.masking.exact._costs import Costs
from siniantrust.masking.exact._offer import why_not
from siniantrust.masking.exact._work import LayerWork, layer_works, total_s

_PADDED, _INSIDE = ("padded",), ("inside",)
_FEMTOSECONDS = 1e15


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether a node is to be offered, and the figures behind it; ``reason`` says it in words.

    Of a layer that is offered, ``inside_s`` is what it would take there beside all others as they were chosen; of one
    that is not, ``masked_s`` is.
    """

    offered: bool
    reason: str
    masked_s: float = 0.0
    inside_s: float = 0.0


def choose_layers(
    model: Model, costs: Costs, known_s: Mapping[str, float] | None = None, *, least_saved: float = 0.0
) -> dict[str, Choice]:
    """Choose the set of nodes under pads with which the trusted side takes the least time.

    Nodes that read the same value share its pad, two whose results devices add have one of them come back, and what
    passes between layers under pads and layers inside costs the trusted side something, so that they are weighed
    together.

    Args:
        model: the model.
        costs: what work costs on the trusted side.
        known_s: what nodes take inside, by name, where that was measured; by ``costs`` where it was not.
        least_saved: no node is offered where all together would save less than this share of what is done inside.

    Returns:
        A choice for every node, by its name.
    """
    works = layer_works(model, known_s or {})
    offered = _cheapest(works, costs)
    none_s = total_s(works, (), costs)
    saved = (none_s - total_s(works, offered, costs)) / (max(none_s, sum((known_s or {}).values())) or 1.0)
    too_little = ""
    if offered and saved < least_saved:
        offered, too_little = frozenset(), f"; pads would save {saved:.0%} of what is done inside, which is too little"
    least_s = total_s(works, offered, costs)
    less_s = {
        each: work.summed_s(costs) / 2
        for name, work in works.items()
        if {name, work.summed_with} <= offered
        for each in (name, work.summed_with)
    }
    chosen: dict[str, Choice] = {}
    for node in model.nodes:
        reason = why_not(model, node)
        if reason is not None:
            chosen[node.name] = Choice(offered=False, reason=reason)
            continue
        work = works[node.name]
        gain_s = total_s(works, offered ^ {node.name}, costs) - least_s
        is_offered = node.name in offered
        shared = sum(name in offered and each.entry == work.entry for name, each in works.items()) if is_offered else 1
        masked_s = work.masked_s(costs) + work.reads * costs.mask_s / shared - less_s.get(node.name, 0.0)
        inside_s = work.inside_s(costs)
        masked_s, inside_s = (masked_s, masked_s + gain_s) if is_offered else (inside_s + gain_s, inside_s)
        # What a sum of two layers reads has a pad of its own.
        reason = _in_words(work, masked_s, inside_s, 1 if node.name in less_s else shared) + too_little
        chosen[node.name] = Choice(is_offered, reason, masked_s, inside_s)
    return chosen


def _cheapest(works: Mapping[str, LayerWork], costs: Costs) -> frozenset[str]:
    """Return the layers on the padded side of a minimum cut; every term of ``total_s`` is an edge or a few."""
    import networkx as nx

    edges: dict[tuple[object, object], float] = {}

    def add(start: object, end: object, cost_s: float) -> None:
        edges[start, end] = edges.get((start, end), 0.0) + cost_s

    for name, work in works.items():
        add(_PADDED, name, work.inside_s(costs))
        add(name, _INSIDE, work.masked_s(costs))
        # A value's pad is paid for once, for as much of it as some reader looks at.
        add(name, ("pad", work.entry, work.reads), math.inf)
        # What is made inside enters once for all its readers under pads, what is unmasked leaves once for all others.
        add(name, ("enter", work.entry), math.inf)
        for source in work.sources:
            add(("leave", source), name, math.inf)
        if work.is_read_inside:
            add(("leave", name), _INSIDE, math.inf)
        add(name, ("leave", name), work.leave_s(costs))
        if work.summed_with is not None:  # what both together save is missed where one of them stays inside
            add(_PADDED, ("sum", name), work.summed_s(costs))
            add(("sum", name), name, math.inf)
            add(("sum", name), work.summed_with, math.inf)
        edges[("enter", work.entry), _INSIDE if work.source is None else work.source] = work.enter_s(costs)
    for start, end, cost_s in _pad_edges(works, costs):
        add(start, end, cost_s)
    graph = nx.DiGraph()
    graph.add_nodes_from((_PADDED, _INSIDE))
    for (start, end), cost_s in edges.items():
        # Without a capacity an edge is never cut. Whole numbers keep the algorithm from losing itself in rounding.
        capacity = {} if math.isinf(cost_s) else {"capacity": round(cost_s * _FEMTOSECONDS)}
        graph.add_edge(start, end, **capacity)
    _, (padded, _) = nx.minimum_cut(graph, _PADDED, _INSIDE)
    return frozenset(name for name in works if name in padded)


def _pad_edges(works: Mapping[str, LayerWork], costs: Costs) -> Iterator[tuple[object, object, float]]:
    """Yield what a value's pad costs, by how much of it layers look at: a layer that looks at more pays for less."""
    reads: dict[str, set[int]] = {}
    for work in works.values():
        reads.setdefault(work.entry, set()).add(work.reads)
    for entry, sizes in reads.items():
        below = 0
        for size in sorted(sizes):
            yield ("pad", entry, size), _INSIDE, (size - below) * costs.mask_s
            if below:
                yield ("pad", entry, size), ("pad", entry, below), math.inf
            below = size


def _in_words(work: LayerWork, masked_s: float, inside_s: float, shared: int) -> str:
    together = f", its input's pad shared by {shared}" if shared > 1 else ""
    return (
        f"{work.node.op_type}: {work.products / (work.entered + work.received):.0f} products for each number that "
        f"crosses; masked {masked_s * 1e3:.2f} ms{together}, inside {inside_s * 1e3:.2f} ms"
    )
