"""Validator: do exactly the listed values cross between the parts, and only forwards?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from siniantrust.graph import Model
from siniantrust.planner._plan import Plan

_CLIENT = "client"


def value_violations(plan: Plan, model: Model, part_of: Sequence[int]) -> Iterator[str]:
    """Yield what is wrong with the values, their sources and targets, and the parts' inputs and outputs.

    Every edge from a lower to a higher part (or inside one) makes the parts acyclic, and each of them convex: a path
    that left a part could only return by going down.
    """
    names = [part.name for part in plan.parts]
    last = len(names) - 1
    source: dict[str, str] = {tensor.name: _CLIENT for tensor in model.inputs}
    home: dict[str, int] = {}
    targets: dict[str, set[str]] = {tensor.name: set() for tensor in model.inputs}
    for index, node in enumerate(model.nodes):
        for name in node.outputs:
            home[name] = part_of[index]
            source[name] = names[part_of[index]]
            targets[name] = set()
    for index, node in enumerate(model.nodes):
        for name in node.inputs:
            if home.get(name, -1) > part_of[index]:
                reader = f"'{node.name}' in {names[part_of[index]]}"
                yield f"order: {reader} reads '{name}', which {source[name]} makes later"
            if name in source and home.get(name, -1) != part_of[index]:
                targets[name].add(names[part_of[index]])
    for tensor in model.inputs:
        if not any(tensor.name in node.inputs for node in model.nodes):
            targets[tensor.name].add(names[0])
    for tensor in model.outputs:
        source.setdefault(tensor.name, names[last])
        targets.setdefault(tensor.name, set()).add(_CLIENT)
    yield from _listing_violations(plan, model, source, targets)
    yield from _interface_violations(plan, source, targets)


def _listing_violations(
    plan: Plan, model: Model, source: dict[str, str], targets: dict[str, set[str]]
) -> Iterator[str]:
    crossing = {name for name, readers in targets.items() if readers}
    counts = Counter(value.tensor for value in plan.values)
    for name in sorted(crossing - set(counts)):
        yield f"values: '{name}' goes from {source[name]} to {', '.join(sorted(targets[name]))} but is not listed"
    sizes = {name: tensor.size_bytes for name, tensor in model.tensors.items()}
    for value in plan.values:
        if value.tensor not in crossing:
            yield f"values: '{value.tensor}' is listed but crosses nothing"
            continue
        if counts[value.tensor] > 1:
            yield f"values: '{value.tensor}' is listed {counts[value.tensor]} times"
        if value.source != source[value.tensor]:
            yield f"values: '{value.tensor}' comes from {source[value.tensor]}, the plan says {value.source}"
        if len(value.targets) != len(set(value.targets)) or set(value.targets) != targets[value.tensor]:
            yield (
                f"values: '{value.tensor}' goes to {', '.join(sorted(targets[value.tensor]))}, "
                f"the plan says {', '.join(value.targets) or 'nowhere'}"
            )
        if value.size_bytes != sizes.get(value.tensor, 0):
            yield f"values: '{value.tensor}' has {sizes.get(value.tensor, 0)} bytes, the plan says {value.size_bytes}"


def _interface_violations(plan: Plan, source: dict[str, str], targets: dict[str, set[str]]) -> Iterator[str]:
    for part in plan.parts:
        expected = {
            "inputs": {name for name, readers in targets.items() if part.name in readers},
            "outputs": {name for name, readers in targets.items() if source[name] == part.name and readers},
        }
        for side, listed in (("inputs", part.inputs), ("outputs", part.outputs)):
            if len(listed) != len(set(listed)) or set(listed) != expected[side]:
                odd = sorted(set(listed) ^ expected[side])[:1] or ["a name twice"]
                yield f"{part.name}: its {side} are not those that its nodes need; see '{odd[0]}'"
