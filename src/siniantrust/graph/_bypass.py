"""Remove nodes that change nothing or that nothing reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import onnx
from onnx import numpy_helper

from siniantrust.graph._uses import captured, makes, uses

_ALWAYS_INFERENCE_OPSET = 7
_TRAINING_INPUT_OPSET = 12


def replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Make ``nodes``, which may be nodes of ``graph`` itself, the nodes of ``graph``."""
    copies = onnx.GraphProto()
    copies.node.extend(nodes)
    del graph.node[:]
    graph.node.extend(copies.node)


def bypass(proto: onnx.ModelProto) -> None:
    """Remove Identity nodes and Dropouts that do nothing, by renaming what they read or what they write."""
    graph = proto.graph
    outputs = {value.name for value in graph.output}
    held = {name for node in graph.node for name in captured(node)}  # names inside subgraphs stay as they are
    made = {name for node in graph.node for name in makes(node)}
    idle = _idle_nodes(proto, outputs)
    renamed: dict[str, str] = {}
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.output[0] not in idle or node.output[0] in held:
            kept.append(node)
            continue
        source, target = _final_name(node.input[0], renamed), node.output[0]
        if target not in outputs:
            renamed[target] = source
        elif source in made and source not in outputs and source not in held:
            renamed[source] = target
        else:
            kept.append(node)
    if renamed:
        for node in kept:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name in renamed:
                        names[index] = _final_name(name, renamed)
        replace_nodes(graph, kept)


def _final_name(name: str, renamed: Mapping[str, str]) -> str:
    while name in renamed:
        name = renamed[name]
    return name


def _idle_nodes(proto: onnx.ModelProto, outputs: AbstractSet[str]) -> set[str]:
    """Return the first outputs of the nodes that hand their first input on unchanged."""
    graph = proto.graph
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 1)
    booleans = (tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.BOOL)
    falsities = {tensor.name for tensor in booleans if not numpy_helper.to_array(tensor).any()}
    read = outputs | {name for node in graph.node for name in uses(node)}
    return {node.output[0] for node in graph.node if _does_nothing(node, opset, falsities, read)}


def _does_nothing(node: onnx.NodeProto, opset: int, falsities: AbstractSet[str], read: AbstractSet[str]) -> bool:
    """Return whether ``node`` hands its first input on unchanged."""
    if node.domain:
        return False
    if node.op_type == "Identity":
        return True
    if node.op_type != "Dropout" or any(name in read for name in node.output[1:]):
        return False
    if opset < _ALWAYS_INFERENCE_OPSET:
        return any(each.name == "is_test" and each.i for each in node.attribute)
    mode = node.input[2] if opset >= _TRAINING_INPUT_OPSET and len(node.input) > 2 else ""  # noqa: PLR2004 - third input
    return not mode or mode in falsities


def remove_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes that no output depends on, and constants that no node reads."""
    needed = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed.isdisjoint(node.output):
            continue
        kept.append(node)
        needed.update(uses(node))
    if len(kept) < len(graph.node):
        replace_nodes(graph, kept[::-1])
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in needed:
            del graph.initializer[index]
    for index in reversed(range(len(graph.sparse_initializer))):
        if graph.sparse_initializer[index].values.name not in needed:
            del graph.sparse_initializer[index]
