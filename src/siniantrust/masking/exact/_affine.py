"""What scales or shifts a layer's rows by constants becomes part of the layer: biases, and batch normalisation.

The integers stay as they are: each row's scale and bias take it up, so that it costs nothing.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from siniantrust.graph import Model
from siniantrust.masking.exact._finish import only_reader
from siniantrust.masking.exact._layer import Layer

_EPSILON = 1e-5


def fold_affine(model: Model, layer: Layer) -> tuple[Layer, str, frozenset[int]]:
    """Return a layer with what follows it folded in, the value that it then gives, and the nodes that are no more."""
    constants = {tensor.name: tensor for tensor in model.proto.graph.initializer}
    value, nodes = layer.exit, set[int]()
    while (index := only_reader(model, value)) is not None:
        found = _affine(layer, model.proto.graph.node[index], value, constants)
        if found is None:
            break
        scale, shift = found
        layer = replace(
            layer,
            row_scales=(layer.row_scales * scale).astype(np.float32),
            bias=(layer.bias * scale + shift).astype(np.float32),
        )
        nodes.add(index)
        value = model.nodes[index].outputs[0]
    return layer, value, frozenset(nodes)


def _affine(
    layer: Layer, node: onnx.NodeProto, value: str, constants: dict[str, onnx.TensorProto]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return by what ``node`` multiplies each row of the layer, and what it adds then, if it does no more."""
    if node.domain:
        return None
    if node.op_type == "BatchNormalization":
        return _normalised(layer, node, value, constants)
    other = next((name for name in node.input if name != value), None)
    if node.op_type not in ("Add", "Mul") or other not in constants:
        return None
    rows = _by_row(layer, numpy_helper.to_array(constants[other]))
    if rows is None:
        return None
    return (np.ones(layer.rows), rows) if node.op_type == "Add" else (rows, np.zeros(layer.rows))


def _normalised(
    layer: Layer, node: onnx.NodeProto, value: str, constants: dict[str, onnx.TensorProto]
) -> tuple[np.ndarray, np.ndarray] | None:
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if node.input[0] != value or len(node.output) > 1 or attributes.get("training_mode", 0) or layer.window is None:
        return None
    if any(name not in constants for name in node.input[1:]):
        return None
    gain, shift, mean, variance = (numpy_helper.to_array(constants[name]).astype(np.float64) for name in node.input[1:])
    scale = gain / np.sqrt(variance + attributes.get("epsilon", _EPSILON))
    return scale, shift - mean * scale


def _by_row(layer: Layer, constant: np.ndarray) -> np.ndarray | None:
    """Return a constant that is one number, or one for each row of the layer, as (rows,)."""
    axis = 1 if layer.window is None else 3  # rows stand so many axes from the end
    shape = (*(1,) * max(axis - constant.ndim, 0), *constant.shape)
    one_each = shape[-axis] in (1, layer.rows) and constant.size in (1, layer.rows)
    if constant.dtype != np.float32 or not one_each or constant.size not in (1, shape[-axis]):
        return None
    rows: np.ndarray = np.broadcast_to(constant.reshape(-1), (layer.rows,)).astype(np.float64)
    return rows
