"""Validator: does a device get nothing of part 1 but padded values, of layers whose other operands are constants?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from siniantrust.graph import Model, Node
from siniantrust.planner._plan import Masking, Plan
from siniantrust.planner._validate_clearance import clearance_violation
from siniantrust.trust import Label

_LINEAR = ("Conv", "Gemm", "MatMul")
_RESIDUE_BYTES = 4


def padding_violations(plan: Plan, model: Model) -> Iterator[str]:
    """Yield what is wrong with the layers under pads, with what crosses for them, and with the devices that see it."""
    masking = plan.masking
    if masking is None:
        return
    first = plan.parts[0]
    if masking.part != first.name or not first.trusted:
        yield f"masking: expected padded layers of '{first.name}' alone, and that trusted; found '{masking.part}'"
        return
    if not masking.layers:
        yield "masking: it lists no layer"
    yield from _device_violations(plan, masking)
    nodes = {node.name: node for node in model.nodes if node.name in set(first.nodes)}
    varying = {tensor.name for tensor in model.inputs} | {name for node in model.nodes for name in node.outputs}
    for name, count in Counter(layer.node for layer in masking.layers).items():
        if count > 1:
            yield f"masking: layer '{name}' is listed {count} times"
        if name not in nodes:
            yield f"masking: layer '{name}' is no node of {first.name}"
    for layer in masking.layers:
        node = nodes.get(layer.node)
        if node is not None:
            yield from _layer_violations(node, layer.entry, layer.exit, varying)
    yield from _value_violations(masking, model)


def _device_violations(plan: Plan, masking: Masking) -> Iterator[str]:
    clearance = {device.name: device.clearance for device in plan.policy.device}
    if not masking.devices or len(set(masking.devices)) != len(masking.devices):
        yield f"masking: expected devices, each once, found {list(masking.devices)}"
    for device in masking.devices:
        if device not in clearance:
            yield f"masking: the policy has no device '{device}'"
            continue
        for value in masking.values:
            wrong = clearance_violation(device, clearance[device], value.tensor, Label.PADDED)
            if wrong is not None:
                yield f"masking: {wrong}"
                break


def _layer_violations(node: Node, entry: str, exit_: str, varying: set[str]) -> Iterator[str]:
    """Yield why a device could not compute the layer from a padded entry and constants."""
    if node.op_type not in _LINEAR:
        yield f"masking: '{node.name}' is a {node.op_type}; a pad goes through {', '.join(_LINEAR)} only"
    if not node.inputs or node.inputs[0] != entry or entry not in varying or node.outputs[:1] != (exit_,):
        yield f"masking: '{node.name}' does not make '{exit_}' from '{entry}'"
    for operand in node.inputs[1:]:
        if operand in varying:
            yield f"masking: '{node.name}' also reads '{operand}', which is no constant and would leave without a pad"


def _value_violations(masking: Masking, model: Model) -> Iterator[str]:
    expected: Counter[tuple[str, str]] = Counter({(layer.entry, "sent"): 1 for layer in masking.layers})
    expected |= Counter({(layer.exit, "received"): 1 for layer in masking.layers})
    found: Counter[tuple[str, str]] = Counter((value.tensor, value.direction) for value in masking.values)
    for name, direction in sorted((expected - found) | (found - expected)):
        yield f"masking: '{name}' should be listed as {direction} {expected[name, direction]} times, found " + str(
            found[name, direction]
        )
    for value in masking.values:
        if value.label is not Label.PADDED:
            yield f"masking: '{value.tensor}' crosses padded, the plan says {value.label.value}"
        tensor = model.tensors.get(value.tensor)
        size_bytes = 0 if tensor is None else _RESIDUE_BYTES * tensor.elements
        if value.size_bytes != size_bytes:
            yield f"masking: '{value.tensor}' has {size_bytes} bytes as residues, the plan says {value.size_bytes}"
