"""Convolutions, and the products of matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from siniantrust.lowering._broadcast import c_numbers, padded, steps_in
from siniantrust.lowering._quantised import quantised
from siniantrust.lowering._values import Operation, RefusedError, Step, Value, c_float, require_dtype
from siniantrust.lowering._windows import window_of

_MATRIX = 2


def _geometry(operation: Operation, x: Value, w: Value) -> tuple[str, int, int]:
    """Return window, filters and groups of a convolution."""
    groups = operation.attribute("group", 1)
    filters, depth, *kernel = w.shape
    if x.shape[1] != groups * depth or filters % groups:
        raise RefusedError(f"weights {list(w.shape)} in {groups} groups do not fit '{x.name}', {list(x.shape)}")
    return window_of(operation, x, kernel).text(), filters, groups


def _conv(operation: Operation) -> tuple[Step, ...]:
    x, w, bias, y = operation.operand(0), operation.operand(1), operation.optional(2), operation.output
    for value in (x, w):
        require_dtype(value, "float32")
    return (Step("conv_f32", (*_geometry(operation, x, w), x, w, bias, y), y),)


def _qlinear_conv(operation: Operation) -> tuple[Step, ...]:
    x, w, bias, y = operation.operand(0), operation.operand(3), operation.optional(8), operation.output
    geometry = _geometry(operation, x, w)
    operands = (
        quantised(x, scale=operation.operand(1), zero=operation.operand(2)),
        quantised(w, scale=operation.operand(4), zero=operation.operand(5), channels=w.shape[0]),
        quantised(y, scale=operation.operand(6), zero=operation.operand(7), is_result=True),
    )
    return (Step("conv_integer", (*geometry, *operands, bias, y), y),)


def _conv_integer(operation: Operation) -> tuple[Step, ...]:
    x, w, y = operation.operand(0), operation.operand(1), operation.output
    geometry = _geometry(operation, x, w)
    operands = (
        quantised(x, zero=operation.optional(2)),
        quantised(w, zero=operation.optional(3), channels=w.shape[0]),
    )
    return (Step("conv_integer", (*geometry, *operands, None, None, y), y),)


def _gemm(operation: Operation) -> tuple[Step, ...]:
    a, b, c, y = operation.operand(0), operation.operand(1), operation.optional(2), operation.output
    require_dtype(a, "float32")
    turn_a, turn_b = operation.attribute("transA", 0), operation.attribute("transB", 0)
    sizes = _sizes(_turned(a.shape, turn_a), _turned(b.shape, turn_b), y)
    steps = (c_numbers(_turned(steps_in(value.shape), turn)) for value, turn in ((a, turn_a), (b, turn_b)))
    factors = c_float(operation.attribute("alpha", 1.0)), c_float(operation.attribute("beta", 1.0))
    steps_c = None if c is None else c_numbers(steps_in(c.shape))
    return (Step("gemm_f32", (*sizes, *factors, *steps, steps_c, a, b, c, y), y),)


def _turned(axes: tuple[int, ...], turn: int) -> tuple[int, ...]:
    """Return axes with the last two in the other order if ``turn`` is not 0."""
    return (*axes[:-_MATRIX], *reversed(axes[-_MATRIX:])) if turn else axes


def _sizes(left: Sequence[int], right: Sequence[int], y: Value) -> tuple[str, int]:
    """Return the shape of a product of matrices or batches of them, and how many products each element sums.

    Raises:
        RefusedError: if the shapes do not fit together.
    """
    misfit = RefusedError(f"a product of {list(left)} and {list(right)} is not '{y.name}', {list(y.shape)}")
    try:
        batch = np.broadcast_shapes(left[:-_MATRIX], right[:-_MATRIX])
        (m, k), (rows, n) = left[-_MATRIX:], right[-_MATRIX:]
    except ValueError:
        raise misfit from None
    if k != rows or math.prod((*batch, m, n)) != y.elements:
        raise misfit
    return padded((*batch, m, n), y), k


def _product(a: Value, b: Value, y: Value) -> tuple[str, int, str, str]:
    """Return sizes and steps of a product as numpy.matmul defines it: vectors are a row on the left, or a column."""
    left, right = (1, *a.shape)[-max(len(a.shape), _MATRIX) :], b.shape if len(b.shape) > 1 else (*b.shape, 1)
    return *_sizes(left, right, y), c_numbers(steps_in(left)), c_numbers(steps_in(right))


def _matmul(operation: Operation) -> tuple[Step, ...]:
    a, b, y = operation.operand(0), operation.operand(1), operation.output
    require_dtype(a, "float32")
    shape, k, *steps = _product(a, b, y)
    return (Step("gemm_f32", (shape, k, c_float(1), c_float(0), *steps, None, a, b, None, y), y),)


def _matmul_integer(operation: Operation) -> tuple[Step, ...]:
    a, b, y = operation.operand(0), operation.operand(1), operation.output
    operands = (
        quantised(a, zero=operation.optional(2)),
        quantised(b, zero=operation.optional(3), channels=_columns(b)),
    )
    return (Step("matmul_integer", (*_product(a, b, y), *operands, None, y), y),)


def _qlinear_matmul(operation: Operation) -> tuple[Step, ...]:
    a, b, y = operation.operand(0), operation.operand(3), operation.output
    operands = (
        quantised(a, scale=operation.operand(1), zero=operation.operand(2)),
        quantised(b, scale=operation.operand(4), zero=operation.operand(5), channels=_columns(b)),
        quantised(y, scale=operation.operand(6), zero=operation.operand(7), is_result=True),
    )
    return (Step("matmul_integer", (*_product(a, b, y), *operands, y), y),)


def _columns(b: Value) -> int:
    return b.shape[-1] if len(b.shape) > 1 else 1


OPERATORS = {
    "Conv": _conv,
    "ConvInteger": _conv_integer,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MatMulInteger": _matmul_integer,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
}
