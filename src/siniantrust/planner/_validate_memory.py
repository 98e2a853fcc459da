"""Validator: do the trusted parts fit the enclave together, and each other part its devices?"""

from __future__ import annotations

from collections.abc import Iterator

from siniantrust.graph import Model
from siniantrust.planner._plan import Plan, PlannedPart


def memory_violations(plan: Plan, model: Model) -> Iterator[str]:
    """Yield a line where weights and the most activations alive exceed the enclave, or a device's limit."""
    need = enclave_bytes(plan, model)
    limit = plan.policy.enclave.memory_bytes
    if need > limit:
        yield f"memory: the trusted parts need {need} bytes, the enclave has {limit}"
    limits = {device.name: device.memory_bytes for device in plan.policy.device}
    for part in plan.parts:
        for name in () if part.trusted else (part.device, *part.replicas):
            limit_bytes = limits[name]
            if limit_bytes is not None:
                need = part.parameter_bytes + _most_alive_bytes(part, model)
                if need > limit_bytes:
                    yield f"memory: {part.name} needs {need} bytes, '{name}' has {limit_bytes}"


def enclave_bytes(plan: Plan, model: Model) -> int:
    """Return what the trusted parts hold at once: the weights of all, and the most activations of one.

    A layer under pads has its weights there in eight bits, a few times: no more than in float32.
    """
    trusted = [part for part in plan.parts if part.trusted]
    weights = sum(part.parameter_bytes for part in trusted)
    return weights + max((_most_alive_bytes(part, model) for part in trusted), default=0)


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
