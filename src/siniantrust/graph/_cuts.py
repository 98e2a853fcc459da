"""All places at which a model can be cut into a first and a second part."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet

from siniantrust._files import sha256_bytes
from siniantrust.errors import PlanError
from siniantrust.graph._flow import Flow, flow_of
from siniantrust.graph._fusable import separates_fusable
from siniantrust.graph._several import Prefix, Segment, search_budget, spread
from siniantrust.graph._single import Chain, single_cuts
from siniantrust.graph._types import Cut, CutSet, Model

_SLUG_CHARACTERS = 40


def enumerate_cuts(model: Model, *, max_tensors: int = 3, cap: int = 512) -> CutSet:
    """Find every single-tensor cut, and multi-tensor cuts of up to ``max_tensors`` tensors.

    A cut's prefix is all ancestors of its tensors. A cut is legal when nothing else crosses: no node outside the prefix
    reads another value made inside or any input of the model (inputs are secret), no output of the model is made inside
    unless it is one of the tensors, and neither side is empty. Constants never cross. Tensors of unknown shape are no
    cuts, nor are values that follow the batch in an irregular way.

    Single-tensor cuts are complete (see ``_single`` for the argument). Multi-tensor cuts are searched segment by
    segment between them (see ``_several``), in turn, so that a cap leaves some everywhere; both steps are linear in the
    number of nodes for networks of blocks, and bounded by ``cap`` beyond that.

    Args:
        model: the model.
        max_tensors: most tensors that may cross.
        cap: most multi-tensor cuts; single-tensor ones are never dropped.

    Returns:
        The cuts in order of the nodes before them. An id is the number of nodes before the cut and its tensors' names.
    """
    flow = flow_of(model)
    chain = single_cuts(flow)
    segments = _segments(chain)
    cuts: list[Cut] = []
    nodes_before = flops_before = 0
    fusable = {value for value, name in enumerate(flow.names) if separates_fusable(model, name)}
    starts: list[tuple[int, int]] = []
    for index, segment in enumerate(segments):
        starts.append((nodes_before, flops_before))
        nodes_before += len(segment)
        flops_before += sum(flow.flops[node] for node in segment)
        if index < len(chain.values) and flow.size_bytes[chain.values[index]] is not None:
            cuts.append(_cut(flow, (chain.values[index],), nodes_before, flops_before, fusable))
    found, capped = _several(flow, chain, segments, fusable, max_tensors, cap) if max_tensors > 1 else ([], False)
    for index, prefix in found:
        nodes, flops = starts[index]
        inside = [node for place, node in enumerate(segments[index]) if prefix.mask >> place & 1]
        total = flops + sum(flow.flops[node] for node in inside)
        cuts.append(_cut(flow, tuple(sorted(prefix.values)), nodes + len(inside), total, fusable))
    cuts.sort(key=lambda cut: (cut.nodes_before, len(cut.tensors), cut.id))
    return CutSet(tuple(cuts), capped=capped, cap=cap)


def prefix_nodes(model: Model, cut: Cut) -> tuple[int, ...]:
    """Return the indices of the nodes before ``cut``: every ancestor of its tensors, ascending.

    Raises:
        PlanError: if a tensor of the cut is made by no node of the model.
    """
    queue: deque[int] = deque()
    for name in cut.tensors:
        if name not in model.producers:
            raise PlanError(
                f"cut '{cut.id}': model '{model.name}' makes no value '{name}'; the cut is of another model"
            )
        queue.append(model.producers[name])
    found = set(queue)
    while queue:
        for name in model.nodes[queue.popleft()].inputs:
            source = model.producers.get(name)
            if source is not None and source not in found:
                found.add(source)
                queue.append(source)
    return tuple(sorted(found))


def _segments(chain: Chain) -> list[list[int]]:
    segments: list[list[int]] = [[] for _ in range(len(chain.values) + 1)]
    for node, level in enumerate(chain.level):
        segments[level].append(node)
    return segments


def _several(
    flow: Flow, chain: Chain, segments: Sequence[Sequence[int]], fusable: AbstractSet[int], max_tensors: int, cap: int
) -> tuple[list[tuple[int, Prefix]], bool]:
    """Take multi-tensor prefixes from the segments in turn; also say whether the cap or the budget ended that.

    Prefixes through a fusable pair of operators are rarely worth offering and come last.
    """
    budget = search_budget(cap)
    sources: dict[int, Iterator[Prefix]] = {}
    for index, nodes in enumerate(segments):
        if len(nodes) > 1:
            entry = [chain.values[index - 1]] if index else [v for v in range(flow.inputs) if flow.readers[v]]
            final = index == len(chain.values)
            sources[index] = Segment(flow, nodes, entry, final=final).prefixes(max_tensors, budget)
    found: list[tuple[int, Prefix]] = []
    spare: list[tuple[int, Prefix]] = []
    while sources:
        active = list(sources)
        for place in spread(len(active)):
            index = active[place]
            prefix = next(sources[index], None)
            if prefix is None:
                del sources[index]
            elif not fusable.isdisjoint(prefix.values):
                spare.append((index, prefix))
            elif len(found) == cap:
                return found, True
            else:
                found.append((index, prefix))
    complete = budget.states >= 0 and len(found) + len(spare) <= cap
    return found + spare[: cap - len(found)], not complete


def _cut(flow: Flow, values: tuple[int, ...], nodes_before: int, flops_before: int, fusable: AbstractSet[int]) -> Cut:
    names = tuple(flow.names[value] for value in values)
    return Cut(
        id=_cut_id(names, nodes_before, digits=max(3, len(str(flow.nodes)))),
        tensors=names,
        nodes_before=nodes_before,
        size_bytes=sum(flow.size_bytes[value] or 0 for value in values),
        flops_before=flops_before,
        fusable=not fusable.isdisjoint(values),
    )


def _cut_id(names: tuple[str, ...], nodes_before: int, *, digits: int) -> str:
    """Return an id such as ``c007-relu3_out``: safe in file names, and the same whatever else was found.

    The number of nodes before it tells single-tensor cuts apart, whose prefixes are nested; a cut of several tensors
    also carries a hash of their names.
    """
    room = _SLUG_CHARACTERS // len(names)
    slugs = [_slug(name, room) for name in names]
    text = f"c{nodes_before:0{digits}d}-{'+'.join(slugs)}"
    return text if len(names) == 1 else f"{text}-{sha256_bytes(chr(0).join(names).encode())[:8]}"


def _slug(name: str, room: int) -> str:
    """Return the end of ``name`` in safe characters, from a separator on where it is too long."""
    text = re.sub(r"[^A-Za-z0-9_-]+", ".", name).strip(".") or "value"
    if len(text) <= room:
        return text
    tail = text[-room:]
    return tail.partition(".")[2] or tail
