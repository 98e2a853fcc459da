"""What scales or shifts a layer's rows by constants becomes part of the layer: biases, and batch normalisation.

The integers stay as they are: each row's scale and bias take it up, so that it costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from siniantrust.graph import Model
from siniantrust.masking.exact._finish import only_reader
from siniantrust.masking.exact._layer import Layer

_EPSILON = 1e-5


@dataclass(frozen=True)
class Affine:
    """What follows a layer: each row times ``scale``, plus ``shift``, by ``nodes``, of which ``value`` comes."""

    scale: np.ndarray = field(repr=False)
    shift: np.ndarray = field(repr=False)
    value: str
    nodes: frozenset[int]


def affine_after(model: Model, exit_: str, rows: int, *, convolves: bool) -> Affine:
    """Return what scales or shifts the rows of ``exit_``, which a layer of so many rows makes, and is read by no other.

    Args:
        model: the model.
        exit_: the layer's result.
        rows: how many there are.
        convolves: whether they are channels; of a matrix product they are the last axis.
    """
    constants = {tensor.name: tensor for tensor in model.proto.graph.initializer}
    value, nodes = exit_, set[int]()
    scale, shift = np.ones(rows), np.zeros(rows)
    while (index := only_reader(model, value)) is not None:
        found = _affine(model.proto.graph.node[index], value, constants, rows, convolves=convolves)
        if found is None:
            break
        by, more = found
        scale, shift = scale * by, shift * by + more
        nodes.add(index)
        value = model.nodes[index].outputs[0]
    return Affine(scale, shift, value, frozenset(nodes))


def fold_affine(model: Model, layer: Layer) -> tuple[Layer, str, frozenset[int]]:
    """Return a layer with what follows it folded in, the value that it then gives, and the nodes that are no more."""
    after = affine_after(model, layer.exit, layer.rows, convolves=layer.window is not None)
    folded = replace(
        layer,
        row_scales=(layer.row_scales * after.scale).astype(np.float32),
        bias=(layer.bias * after.scale + after.shift).astype(np.float32),
    )
    return folded, after.value, after.nodes


def _affine(
    node: onnx.NodeProto, value: str, constants: dict[str, onnx.TensorProto], rows: int, *, convolves: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return by what ``node`` multiplies each row of ``value``, and what it adds then, if it does no more."""
    if node.domain:
        return None
    if node.op_type == "BatchNormalization":
        return _normalised(node, value, constants) if convolves else None
    other = next((name for name in node.input if name != value), None)
    if node.op_type not in ("Add", "Mul") or other not in constants:
        return None
    each = _by_row(numpy_helper.to_array(constants[other]), rows, convolves=convolves)
    if each is None:
        return None
    return (np.ones(rows), each) if node.op_type == "Add" else (each, np.zeros(rows))


def _normalised(
    node: onnx.NodeProto, value: str, constants: dict[str, onnx.TensorProto]
) -> tuple[np.ndarray, np.ndarray] | None:
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if node.input[0] != value or len(node.output) > 1 or attributes.get("training_mode", 0):
        return None
    if any(name not in constants for name in node.input[1:]):
        return None
    gain, shift, mean, variance = (numpy_helper.to_array(constants[name]).astype(np.float64) for name in node.input[1:])
    scale = gain / np.sqrt(variance + attributes.get("epsilon", _EPSILON))
    return scale, shift - mean * scale


def _by_row(constant: np.ndarray, rows: int, *, convolves: bool) -> np.ndarray | None:
    """Return a constant that is one number, or one for each row of a layer, as (rows,)."""
    axis = 3 if convolves else 1  # rows stand so many axes from the end
    shape = (*(1,) * max(axis - constant.ndim, 0), *constant.shape)
    one_each = shape[-axis] in (1, rows) and constant.size in (1, rows)
    if constant.dtype != np.float32 or not one_each or constant.size not in (1, shape[-axis]):
        return None
    each: np.ndarray = np.broadcast_to(constant.reshape(-1), (rows,)).astype(np.float64)
    return each
