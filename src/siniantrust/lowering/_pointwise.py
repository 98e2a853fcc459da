"""Operators whose every output element depends on the same element of an input: activations, sums, casts."""

from __future__ import annotations

import math

from siniantrust.lowering._broadcast import c_numbers, padded, steps_in
from siniantrust.lowering._layout import view
from siniantrust.lowering._values import KINDS, Operation, RefusedError, Step, Value, c_float, require_dtype

_PAIR = 2
_BINARY = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Div": "DIV", "Max": "MAX", "Min": "MIN", "PRelu": "PRELU"}


def _activation(kernel: str, *numbers: str, operation: Operation) -> tuple[Step, ...]:
    x, y = operation.operand(0), operation.output
    require_dtype(x, "float32")
    return (Step(kernel, (x.elements, *numbers, x, y), y, over=(x,)),)


def _relu(operation: Operation) -> tuple[Step, ...]:
    return _activation("relu_f32", operation=operation)


def _leaky_relu(operation: Operation) -> tuple[Step, ...]:
    return _activation("leaky_relu_f32", c_float(operation.attribute("alpha", 0.01)), operation=operation)


def _hard_sigmoid(operation: Operation) -> tuple[Step, ...]:
    numbers = (operation.attribute("alpha", 0.2), operation.attribute("beta", 0.5))
    return _activation("hard_sigmoid_f32", *map(c_float, numbers), operation=operation)


def _hard_swish(operation: Operation) -> tuple[Step, ...]:
    return _activation("hard_swish_f32", operation=operation)


def _abs(operation: Operation) -> tuple[Step, ...]:
    return _activation("abs_f32", operation=operation)


def _floor(operation: Operation) -> tuple[Step, ...]:
    return _activation("floor_f32", operation=operation)


def _cast(operation: Operation) -> tuple[Step, ...]:
    x, y = operation.operand(0), operation.output
    if x.dtype == y.dtype:
        return view(operation)
    for value in (x, y):
        require_dtype(value, "float32", "int32", "int64")
    kinds = [KINDS[value.dtype] for value in (x, y) if value.dtype != "float32"]
    kernel = {x.dtype: "cast_from_f32", y.dtype: "cast_to_f32"}.get("float32", "cast_integers")
    over = (x,) if x.size_bytes == y.size_bytes else ()
    return (Step(kernel, (x.elements, *kinds, x, y), y, over=over),)


def _clip(operation: Operation) -> tuple[Step, ...]:
    x, y = operation.operand(0), operation.output
    require_dtype(x, "float32")
    bounds: list[Value | str | None] = [operation.optional(1), operation.optional(2)]
    for position, name in enumerate(("min", "max")):  # attributes until opset 10
        if name in operation.attributes:
            bounds[position] = f"&(const float){{{c_float(operation.attribute(name, 0))}}}"
    return (Step("clip_f32", (x.elements, *bounds, x, y), y, over=(x,)),)


def _binary(operation: Operation) -> tuple[Step, ...]:
    if len(operation.inputs) != _PAIR:
        raise RefusedError(f"with {len(operation.inputs)} inputs it cannot be lowered, only with two")
    a, b, y = operation.operand(0), operation.operand(1), operation.output
    require_dtype(a, "float32")
    shape = padded(y.shape, y)
    steps = (c_numbers(steps_in(value.shape)) for value in (a, b))
    over = tuple(value for value in (a, b) if value.shape == y.shape)
    return (Step("binary_f32", (_BINARY[operation.op_type], shape, *steps, a, b, y), y, over=over),)


def _batch_norm(operation: Operation) -> tuple[Step, ...]:
    x, y = operation.operand(0), operation.output
    require_dtype(x, "float32")
    if operation.attribute("training_mode", 0):
        raise RefusedError("training mode cannot be lowered")
    sizes = (x.shape[0], x.shape[1], math.prod(x.shape[2:]), c_float(operation.attribute("epsilon", 1e-5)))
    statistics = tuple(operation.operand(position) for position in range(1, 5))
    return (Step("batch_norm_f32", (*sizes, x, *statistics, y), y, over=(x,)),)


OPERATORS = {
    **dict.fromkeys(_BINARY, _binary),
    "Abs": _abs,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Floor": _floor,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "LeakyRelu": _leaky_relu,
    "Relu": _relu,
}
