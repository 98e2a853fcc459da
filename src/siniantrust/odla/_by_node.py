"""Which nodes of a part are to blame when a runtime refuses the whole, found by asking for each alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import onnx
from onnx import helper, shape_inference

from siniantrust.errors import DeviceError
from siniantrust.graph import Part
from siniantrust.odla._device import Unsupported
from siniantrust.odla._proto import copy_fields
from siniantrust.odla._signature import signature_of

# A constant operand up to this size goes into the single-node model, since some operators need it to be one (the
# shape of a Reshape); a larger one (a convolution's weights) becomes an input.
_CONSTANT_LIMIT = 4096


def unsupported_ports(part: Part) -> list[Unsupported]:
    """Return the refusal of a part whose inputs or outputs no device can take, whatever computes it."""
    try:
        signature_of(part)
    except DeviceError as refusal:
        return [Unsupported(node="", op_type="", reason=str(refusal))]
    return []


def blamed_nodes(part: Part, verdict: Callable[[onnx.ModelProto], str | None]) -> list[Unsupported]:
    """Ask ``verdict`` for each node as a model of its own; it returns why the model is refused, or None.

    Equal operators on equal types are asked for once.
    """
    verdicts: dict[bytes, str | None] = {}
    refused = []
    for name, node, proto in _single_nodes(part):
        twin = _without_names(proto)
        key = twin.SerializeToString(deterministic=True)
        if key not in verdicts:
            verdicts[key] = verdict(twin)
        reason = verdicts[key]
        if reason is not None:
            refused.append(Unsupported(node=name, op_type=node.op_type, reason=reason))
    return refused


def _single_nodes(part: Part) -> Iterator[tuple[str, onnx.NodeProto, onnx.ModelProto]]:
    """Yield each node as a model of its own, where the types of its operands are known."""
    graph = part.proto.graph
    types = _types(part.proto)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for index, node in enumerate(graph.node):
        if any(
            attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for attribute in node.attribute
        ):
            continue  # its body may read values of the outer graph, which a model of its own would lack
        operands = [name for name in dict.fromkeys(node.input) if name]
        small = [constants[name] for name in operands if name in constants and _is_small(constants[name])]
        free = [name for name in operands if name not in {tensor.name for tensor in small}]
        if any(name not in types for name in free):
            continue
        named = node.name or (part.node_names[index] if index < len(part.node_names) else f"#{index}")
        alone = helper.make_graph(
            [node],
            named,
            [types[name] for name in free],
            [types.get(name) or helper.make_empty_tensor_value_info(name) for name in node.output if name],
            initializer=small,
        )
        yield (
            named,
            node,
            helper.make_model(alone, ir_version=part.proto.ir_version, opset_imports=part.proto.opset_import),
        )


def _is_small(tensor: onnx.TensorProto) -> bool:
    return len(tensor.dims) <= 1 and sum(tensor.dims) <= _CONSTANT_LIMIT


def _types(proto: onnx.ModelProto) -> Mapping[str, onnx.ValueInfoProto]:
    light = onnx.ModelProto()
    copy_fields(proto, light, leaving_out="graph")
    copy_fields(proto.graph, light.graph, leaving_out="initializer")
    for tensor in proto.graph.initializer:
        if _is_small(tensor):
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    graph = shape_inference.infer_shapes(light).graph
    return {
        value.name: value
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type != onnx.TensorProto.UNDEFINED
    }


def _without_names(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a twin that equal operators on equal types share, whatever they and their values are called."""
    twin = onnx.ModelProto()
    twin.CopyFrom(proto)
    graph = twin.graph
    numbers: dict[str, str] = {}
    graph.name = graph.node[0].doc_string = ""
    graph.node[0].name = "this node"
    for names in (graph.node[0].input, graph.node[0].output):
        for position, name in enumerate(names):
            names[position] = numbers.setdefault(name, str(len(numbers))) if name else ""
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = numbers[value.name]
    return twin
