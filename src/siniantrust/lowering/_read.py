"""From an ONNX part, whole or sealed, to operations on values of known dtype and shape, for one batch item."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from siniantrust.errors import ModelError
from siniantrust.lowering._values import Operation, Value

# Shapes and axes are small initialisers that shape inference reads.
_KEEP_ELEMENTS = 64
_INDICES = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
_ONNX_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Reading:
    """A part as the lowering sees it. ``nodes`` holds each node's name with its operation, or why it has none."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    weights: tuple[Value, ...]
    nodes: tuple[tuple[str, str, Operation | str], ...]


def read(model: onnx.ModelProto, *, origin: str) -> Reading:
    """Read a part; its free dimension is the batch, and counts 1.

    Weights are the initialisers or, in a sealed part's skeleton, the values that are declared and that nothing makes.

    Raises:
        ModelError: if an input or output has no known shape, a dimension other than the first is free, or no node makes
            an output.
    """
    light = _without_weights(model)
    weights = [_value(entry, origin) for entry in _declared_weights(light)]
    for entry in (*light.graph.input, *light.graph.output):
        _bind_batch(entry, origin)
    try:
        typed = shape_inference.infer_shapes(light, data_prop=True)
    except Exception as fault:  # noqa: BLE001 - onnx raises classes of its own, all of which mean this
        raise ModelError(f"{origin}: its shapes cannot be inferred ({' '.join(str(fault).split())})") from None
    constants = {tensor.name: _constant(tensor) for tensor in typed.graph.initializer}
    named = [*typed.graph.value_info, *typed.graph.output, *typed.graph.input]
    known = {entry.name: _value(entry, origin) for entry in named if _is_known(entry)} | constants
    given = {entry.name for entry in model.graph.input} - {tensor.name for tensor in model.graph.initializer}
    integers = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.data_type in _INDICES
    }
    nodes = [
        (node.name or f"#{index}", node.op_type, _operation(node, known, integers))
        for index, node in enumerate(typed.graph.node)
    ]
    order = {tensor.name: place for place, tensor in enumerate(model.graph.initializer)}
    weights = sorted([*weights, *constants.values()], key=lambda value: order.get(value.name, 0))
    made = {name for node in typed.graph.node for name in node.output}
    for entry in typed.graph.output:
        if entry.name not in made:
            raise ModelError(f"{origin}: output '{entry.name}' is made by no node, so that there is nothing to lower")
    return Reading(
        inputs=tuple(_value(entry, origin) for entry in typed.graph.input if entry.name in given),
        outputs=tuple(_value(entry, origin) for entry in typed.graph.output),
        weights=tuple(weights),
        nodes=tuple(nodes),
    )


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose large initialisers are declared and not there."""
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.graph.name = model.graph.name or "part"
    light.graph.node.extend(model.graph.node)
    initialisers = {tensor.name for tensor in model.graph.initializer}
    light.graph.input.extend(entry for entry in model.graph.input if entry.name not in initialisers)
    light.graph.output.extend(model.graph.output)
    light.graph.value_info.extend(entry for entry in model.graph.value_info if entry.name not in initialisers)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT64 and sum(tensor.dims) <= _KEEP_ELEMENTS:
            light.graph.initializer.append(tensor)
        else:
            light.graph.value_info.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light


def _declared_weights(light: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    """Move the declared values that nothing makes to the inputs, where inference sees them; yield them in order."""
    graph = light.graph
    batch = {dim.dim_param for entry in graph.input for dim in entry.type.tensor_type.shape.dim[:1]} - {""}
    made = {name for node in graph.node for name in node.output} | {entry.name for entry in graph.input}
    kept = []
    for entry in graph.value_info:
        if entry.name in made:
            kept.append(entry)
        else:
            graph.input.append(entry)
            yield entry
    del graph.value_info[:]
    # What is declared is known, also where a shape that was sealed decides; the batch counts 1.
    for entry in kept:
        for dim in entry.type.tensor_type.shape.dim[:1]:
            if dim.dim_param in batch:
                dim.dim_value = 1
    graph.value_info.extend(entry for entry in kept if not _is_free(entry))


def _bind_batch(entry: onnx.ValueInfoProto, origin: str) -> None:
    for axis, dim in enumerate(entry.type.tensor_type.shape.dim):
        if dim.dim_param and axis:
            raise ModelError(f"{origin}: '{entry.name}': axis {axis} is free; only the batch, the first axis, may be")
        if dim.dim_param:
            dim.dim_value = 1


def _is_free(entry: onnx.ValueInfoProto) -> bool:
    return any(dim.dim_param for dim in entry.type.tensor_type.shape.dim)


def _is_known(entry: onnx.ValueInfoProto) -> bool:
    kind = entry.type.tensor_type
    return bool(kind.elem_type and kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim))


def _value(entry: onnx.ValueInfoProto, origin: str) -> Value:
    if not _is_known(entry):
        raise ModelError(f"{origin}: the shape of '{entry.name}' is not known")
    kind = entry.type.tensor_type
    shape = tuple(dim.dim_value for dim in kind.shape.dim)
    return Value(entry.name, str(helper.tensor_dtype_to_np_dtype(kind.elem_type)), shape)


def _constant(tensor: onnx.TensorProto) -> Value:
    return Value(tensor.name, str(helper.tensor_dtype_to_np_dtype(tensor.data_type)), tuple(tensor.dims))


def _operation(node: onnx.NodeProto, known: dict[str, Value], integers: dict[str, np.ndarray]) -> Operation | str:
    """Return the node as an operation, or why it is none."""
    if node.domain not in _ONNX_DOMAINS:
        return f"operators of the domain {node.domain} cannot be lowered"
    used = [name for name in (*node.input, *node.output) if name]
    unknown = next((name for name in used if name not in known), None)
    if unknown is not None:
        return f"the shape of '{unknown}' is not known when the part is sealed"
    try:
        attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    except ValueError as fault:
        return str(fault)
    return Operation(
        op_type=node.op_type,
        attributes=attributes,
        inputs=tuple(known[name] if name else None for name in node.input),
        outputs=tuple(known[name] for name in node.output if name),
        known=integers,
    )
