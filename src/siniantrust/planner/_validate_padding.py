"""Validator: does a device get nothing of part 1 but padded values, of layers whose other operands are constants?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from siniantrust.graph import Model, Node
from siniantrust.planner._plan import Masking, PaddedLayer, Plan
from siniantrust.planner._validate_clearance import clearance_violation
from siniantrust.trust import Label

_LINEAR = ("Conv", "Gemm", "MatMul")
# What constants do to each row of a layer's result before it is added, which devices may take into the layer.
_BY_ROW = ("Add", "BatchNormalization", "Mul")
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
    for exit_, layers in _by_exit(masking).items():
        for layer in layers:
            if (node := nodes.get(layer.node)) is not None:
                made = node.outputs[0] if len(layers) > 1 else exit_
                yield from _layer_violations(node, layer.entry, made, varying)
        yield from _sum_violations(exit_, layers, model, nodes, varying)
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


def _by_exit(masking: Masking) -> dict[str, list[PaddedLayer]]:
    """Return the layers by what comes back: of several that have the same, their sum."""
    found: dict[str, list[PaddedLayer]] = {}
    for layer in masking.layers:
        found.setdefault(layer.exit, []).append(layer)
    return found


def _sum_violations(
    exit_: str, layers: Sequence[PaddedLayer], model: Model, nodes: Mapping[str, Node], varying: Collection[str]
) -> Iterator[str]:
    """Yield why what several layers have as their exit is not the sum of what two of them give, and of nothing else."""
    if len(layers) == 1:
        return
    names = sorted(layer.node for layer in layers)
    node = model.nodes[model.producers[exit_]] if exit_ in model.producers else None
    if node is None or node.name not in nodes or node.op_type != "Add":
        yield f"masking: '{exit_}' is listed for {names}, and no sum of the part makes it"
        return
    sources = [_source(model, name, node, varying) for name in node.inputs]
    shapes = {tensor and tensor.shape for tensor in map(model.tensors.get, (exit_, *node.inputs))}
    if None in sources or sorted(filter(None, sources)) != names or len(shapes) > 1:
        yield f"masking: '{exit_}' is not the sum of what {names} alone give, as it is listed"


def _source(model: Model, value: str, reader: Node, varying: Collection[str]) -> str | None:
    """Return which layer makes a value, but for what constants do to it by row, if nothing but ``reader`` reads it."""
    while True:
        if model.consumers.get(value) != (reader.index,) or value in {output.name for output in model.outputs}:
            return None
        if value not in model.producers:
            return None
        reader = model.nodes[model.producers[value]]
        if reader.op_type in _LINEAR:
            return reader.name
        inputs = [name for name in reader.inputs if name in varying]
        if reader.op_type not in _BY_ROW or len(inputs) != 1:
            return None
        (value,) = inputs


def _value_violations(masking: Masking, model: Model) -> Iterator[str]:
    by_exit = _by_exit(masking).values()
    joined = [layer.entry for layers in by_exit if len(layers) > 1 for layer in layers]
    expected: Counter[tuple[str, str]] = Counter((entry, "sent") for entry in joined)
    expected += Counter({(layers[0].entry, "sent"): 1 for layers in by_exit if len(layers) == 1})
    expected += Counter({(layer.exit, "received"): 1 for layer in masking.layers})
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
