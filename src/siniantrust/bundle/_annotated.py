"""``annotated.onnx``: the whole graph with its devices, for any tool to open, without a trusted part's numbers."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import helper

from siniantrust.graph import NOISE_PREFIX, Model, Part, with_device_configurations
from siniantrust.planner import Plan


def weightless_annotated(
    model: Model, plan: Plan, parts: Sequence[Part], skeletons: Sequence[onnx.ModelProto]
) -> bytes:
    """Return the annotated model, put together from what may be seen of each part.

    A weight that only trusted parts read becomes an input of the same type and shape: the file stays a valid model, and
    holds nothing that the sealed files protect. Weights of untrusted parts stay, since they are in plain anyway.

    Args:
        model: the model.
        plan: its plan.
        parts: the parts, in order, with their weights (for types and shapes only).
        skeletons: for each part what may be seen: the sealed part's skeleton, or the whole untrusted part.
    """
    shell = onnx.ModelProto(ir_version=model.proto.ir_version, producer_name="siniantrust")
    shell.opset_import.extend(model.proto.opset_import)
    shell.graph.name = model.name
    shell.graph.input.extend(model.proto.graph.input)
    shell.graph.output.extend(model.proto.graph.output)
    present: set[str] = {value.name for value in shell.graph.input}
    for skeleton in skeletons:
        shell.graph.node.extend(skeleton.graph.node)
        shell.graph.input.extend(each for each in skeleton.graph.input if each.name.startswith(NOISE_PREFIX))
        for tensor in skeleton.graph.initializer:
            if tensor.name not in present:
                present.add(tensor.name)
                shell.graph.initializer.append(tensor)
        known = {(function.domain, function.name) for function in shell.functions}
        shell.functions.extend(each for each in skeleton.functions if (each.domain, each.name) not in known)
    for part in parts:
        for tensor in part.proto.graph.initializer:
            if tensor.name not in present:
                present.add(tensor.name)
                described = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
                shell.graph.input.append(described)
    kept = {node.name for node in shell.graph.node}
    assignment = {name: part.device for part in plan.parts for name in part.nodes if name in kept}
    devices = list(dict.fromkeys(part.device for part in plan.parts))
    annotated = with_device_configurations(shell, devices=devices, assignment=assignment)
    data: bytes = annotated.SerializeToString(deterministic=True)
    return data


def without_unused_functions(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with only the functions that its nodes call.

    The others belong to other parts, and may hold constants that are sealed there.
    """
    functions = {(function.domain, function.name): function for function in proto.functions}
    called: dict[tuple[str, str], None] = {}
    pending = list(_calls(proto.graph.node))
    while pending:
        call = pending.pop()
        if call in functions and call not in called:
            called[call] = None
            pending.extend(_calls(functions[call].node))
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.functions[:]
    copy.functions.extend(functions[call] for call in functions if call in called)
    return copy


def _calls(nodes: Sequence[onnx.NodeProto]) -> list[tuple[str, str]]:
    """List what ``nodes`` and the bodies inside them call."""
    found = []
    for node in nodes:
        found.append((node.domain, node.op_type))
        for attribute in node.attribute:
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                found.extend(_calls(body.node))
    return found
