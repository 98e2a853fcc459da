"""Operators whose every output element depends on the same element of an input: activations, sums, normalisation."""

from __future__ import annotations

import math

from siniantrust.lowering._values import Operation, RefusedError, Step, Value, c_float, require_dtype

_MAX_RANK = 6
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
    if len(y.shape) > _MAX_RANK:
        raise RefusedError(f"'{y.name}' has {len(y.shape)} axes, at most {_MAX_RANK} can be lowered")
    shape = _numbers((1,) * (_MAX_RANK - len(y.shape)) + y.shape)
    steps = (_numbers(_broadcast_steps(value, y)) for value in (a, b))
    over = tuple(value for value in (a, b) if value.shape == y.shape)
    return (Step("binary_f32", (_BINARY[operation.op_type], shape, *steps, a, b, y), y, over=over),)


def _broadcast_steps(value: Value, target: Value) -> tuple[int, ...]:
    """Return how far to go in ``value`` for one step along each of the target's axes."""
    missing = len(target.shape) - len(value.shape)
    steps = [0 if size == 1 else math.prod(value.shape[axis + 1 :]) for axis, size in enumerate(value.shape)]
    return (0,) * (_MAX_RANK - len(target.shape) + missing) + tuple(steps)


def _numbers(values: tuple[int, ...]) -> str:
    return f"(const int32_t[]){{{', '.join(map(str, values))}}}"


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
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "LeakyRelu": _leaky_relu,
    "Relu": _relu,
}
