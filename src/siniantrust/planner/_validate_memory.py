"""Validator: do the trusted parts fit the enclave together?"""

from __future__ import annotations

from collections.abc import Iterator

from siniantrust.graph import Model
from siniantrust.planner._plan import Plan, PlannedPart


def memory_violations(plan: Plan, model: Model) -> Iterator[str]:
    """Yield a line if the weights of all trusted parts and the largest activations of one exceed the enclave."""
    trusted = [part for part in plan.parts if part.trusted]
    need = sum(part.parameter_bytes for part in trusted)
    need += max((_most_alive_bytes(part, model) for part in trusted), default=0)
    limit = plan.policy.enclave.memory_bytes
    if need > limit:
        yield f"memory: the trusted parts need {need} bytes, the enclave has {limit}"


def _most_alive_bytes(part: PlannedPart, model: Model) -> int:
    """Return the most bytes of activations alive at once: reference counts, one node after the other."""
    inside = set(part.nodes)
    nodes = [node for node in model.nodes if node.name in inside]
    sizes = {name: tensor.size_bytes for name, tensor in model.tensors.items()}
    uses: dict[str, int] = {}
    for node in nodes:
        for name in set(node.inputs):
            uses[name] = uses.get(name, 0) + 1
    for name in part.outputs:
        uses[name] = uses.get(name, 0) + 1  # never given up
    alive = {name for name in part.inputs if uses.get(name)}
    most = current = sum(sizes.get(name, 0) for name in alive)
    for node in nodes:
        alive.update(node.outputs)
        current += sum(sizes.get(name, 0) for name in node.outputs)
        most = max(most, current)
        for name in set(node.inputs):
            uses[name] -= 1
        for name in {*node.inputs, *node.outputs} & alive:
            if not uses.get(name):
                alive.discard(name)
                current -= sizes.get(name, 0)
    return most
