"""Which nodes can be offered to a device under a pad, and their quantised form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from siniantrust.errors import PlanError
from siniantrust.graph import Model, Node
from siniantrust.masking.exact import _ring
from siniantrust.masking.exact._layer import Layer, Window

_MATRIX = 2
_IMAGES = 4
_BIAS = 2
# How much larger steps may become for the sake of three bytes, and what rounding then adds to a row's sum at most.
_COARSER = 2.0
_ROUNDING = 1.01


def why_not(model: Model, node: Node) -> str | None:
    """Return why ``node`` cannot be offered to a device under a pad, or None if it can."""
    proto = model.proto.graph.node[node.index]
    if proto.domain or node.op_type not in _OWN:
        return f"{node.op_type} is not linear with constant weights"
    constants = {tensor.name: len(tensor.dims) for tensor in model.proto.graph.initializer}
    entry, exit_ = model.tensors.get(proto.input[0]), model.tensors.get(proto.output[0])
    has_bias = len(proto.input) > _BIAS and bool(proto.input[_BIAS])
    checks = (
        (proto.input[1] not in constants, "its weights are not constant"),
        (has_bias and proto.input[2] not in constants, "its bias is not constant"),
        (entry is None or exit_ is None, "its shapes are not known"),
        (entry is not None and entry.dtype != "float32", "it does not compute in float32"),
        (entry is not None and entry.batch_axis not in (0, None), "the batch is not its first axis"),
    )
    own = _OWN[node.op_type](_attributes(proto), constants.get(proto.input[1], 0), len(entry.shape) if entry else 0)
    return next((f"{node.op_type}: {reason}" for wrong, reason in (*checks, *own) if wrong), None)


_Checks = tuple[tuple[bool, str], ...]


def _convolution(attributes: dict[str, Any], weight_dims: int, _entry_dims: int) -> _Checks:
    return (
        (weight_dims != _IMAGES, "it is not two-dimensional"),
        (attributes.get("group", 1) != 1, "it has several groups"),
        (attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"), "its padding is automatic"),
    )


def _general(attributes: dict[str, Any], weight_dims: int, entry_dims: int) -> _Checks:
    return (
        (weight_dims != _MATRIX or entry_dims != _MATRIX, "its operands are no matrices"),
        (bool(attributes.get("transA", 0)), "its input is transposed"),
    )


def _product(_attributes: dict[str, Any], weight_dims: int, entry_dims: int) -> _Checks:
    return ((weight_dims != _MATRIX or entry_dims < _MATRIX, "its operands are no matrices"),)


_OWN: dict[str, Callable[[dict[str, Any], int, int], _Checks]] = {
    "Conv": _convolution,
    "Gemm": _general,
    "MatMul": _product,
}


@dataclass(frozen=True)
class Linear:
    """A node that ``why_not`` has nothing against, in float32: weights with rows first, and a bias for each row."""

    weight: np.ndarray = field(repr=False)
    bias: np.ndarray = field(repr=False)
    window: Window | None


def linear_of(model: Model, node: Node) -> Linear:
    """Read a node's weights.

    Raises:
        PlanError: if they are not finite.
    """
    proto = model.proto.graph.node[node.index]
    constants = {tensor.name: tensor for tensor in model.proto.graph.initializer}
    attributes = _attributes(proto)
    weight = numpy_helper.to_array(constants[proto.input[1]]).astype(np.float32)
    has_bias = len(proto.input) > _BIAS and bool(proto.input[_BIAS])
    bias = numpy_helper.to_array(constants[proto.input[2]]).astype(np.float32) if has_bias else np.zeros(1, np.float32)
    if node.op_type != "Conv":
        if not attributes.get("transB", 0):
            weight = np.ascontiguousarray(weight.T)
        weight = weight * np.float32(attributes.get("alpha", 1.0))
        bias = bias * np.float32(attributes.get("beta", 1.0))
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise PlanError(f"layer '{node.name}': its weights are not finite")
    bias = np.broadcast_to(bias.reshape(-1), (len(weight),)).astype(np.float32)
    return Linear(weight, bias, window_of(model, node))


def window_of(model: Model, node: Node) -> Window | None:
    """Return how a convolution slides; None for a matrix product."""
    if node.op_type != "Conv":
        return None
    proto = model.proto.graph.node[node.index]
    (kernel,) = (tensor.dims[2:] for tensor in model.proto.graph.initializer if tensor.name == proto.input[1])
    return _window(_attributes(proto), tuple(kernel))


def make_layer(model: Model, node: Node, *, input_scale: float) -> Layer:
    """Quantise a node that ``why_not`` has nothing against; ``input_scale`` comes from calibration.

    Raises:
        PlanError: if its bounds cannot be proven, or its weights are not finite.
    """
    proto, linear = model.proto.graph.node[node.index], linear_of(model, node)
    steps, row_scales = quantised(linear.weight)
    layer = Layer(
        name=node.name,
        entry=proto.input[0],
        exit=proto.output[0],
        weight=steps,
        bias=linear.bias,
        input_scale=input_scale,
        row_scales=row_scales,
        window=linear.window,
    )
    layer.check()
    return layer


def quantised(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (rows, ...) in steps of +-127 (int8), and what a step of each row is worth.

    A row whose sum just needs a fourth byte gets steps up to twice as large: half a bit of a weight, on average, costs
    less than a quarter of all that crosses.
    """
    form, weight = weight.shape, weight.reshape(len(weight), -1)
    largest = np.abs(weight).max(axis=1)
    scales = np.where(largest > 0, largest / np.float32(_ring.QUANTISED_MAX), np.float32(1)).astype(np.float32)
    steps = _steps(weight, scales)
    most = _ring.NARROW_MOST // _ring.QUANTISED_MAX
    coarser = np.abs(steps.astype(np.int64)).sum(axis=1) / most
    if not 1 < coarser.max(initial=0) <= _COARSER:
        return steps.reshape(form), scales
    wider = np.where(coarser > 1, scales * np.float32(_ROUNDING) * coarser.astype(np.float32), scales)
    changed = _steps(weight, wider)
    narrow = np.abs(changed.astype(np.int64)).sum(axis=1).max(initial=0) <= most
    return (changed.reshape(form), wider) if narrow else (steps.reshape(form), scales)


def _steps(weight: np.ndarray, scales: np.ndarray) -> np.ndarray:
    steps: np.ndarray = np.clip(np.rint(weight / scales[:, None]), -_ring.QUANTISED_MAX, _ring.QUANTISED_MAX)
    return steps.astype(np.int8)


def _attributes(proto: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in proto.attribute}


def _window(attributes: dict[str, Any], kernel: tuple[int, ...]) -> Window:
    def pair(name: str, default: int) -> tuple[int, int]:
        first, second = attributes.get(name, (default, default))
        return int(first), int(second)

    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    return Window(
        kernel=(kernel[0], kernel[1]),
        strides=pair("strides", 1),
        dilations=pair("dilations", 1),
        pads=(int(top), int(left), int(bottom), int(right)),
    )
