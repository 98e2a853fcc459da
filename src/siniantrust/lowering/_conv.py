"""Convolutions, and the products of matrices."""

from __future__ import annotations

import math

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
    k, m = a.shape if turn_a else a.shape[::-1]
    n = y.shape[1]
    steps_a = (1, m) if turn_a else (k, 1)
    steps_b = (1, k) if turn_b else (n, 1)
    factors = c_float(operation.attribute("alpha", 1.0)), c_float(operation.attribute("beta", 1.0))
    rows, columns = (1, 1) if c is None else ((1, 1, *c.shape)[-_MATRIX:])
    steps_c = (columns if rows > 1 else 0, int(columns > 1))
    return (Step("gemm_f32", (1, m, k, n, *steps_a, *steps_b, 0, *factors, *steps_c, a, b, c, y), y),)


def _product(a: Value, b: Value) -> tuple[int, int, int, int, int]:
    """Return batch, m, k, n, and the step from one right matrix to the next, of a product as numpy.matmul defines it.

    Raises:
        RefusedError: if operands are vectors, or batches are broadcast in any other way than one right matrix for all.
    """
    if min(len(a.shape), len(b.shape)) < _MATRIX:
        raise RefusedError("a product with a vector cannot be lowered, only of matrices")
    (*batch, m, k), (*right, _, n) = a.shape, b.shape
    if math.prod(right) == 1 and len(right) <= len(batch):
        return 1, math.prod(batch) * m, k, n, 0
    if batch != right:
        raise RefusedError(f"a product of {list(a.shape)} and {list(b.shape)} would broadcast its batches")
    return math.prod(batch), m, k, n, k * n


def _matmul(operation: Operation) -> tuple[Step, ...]:
    a, b, y = operation.operand(0), operation.operand(1), operation.output
    require_dtype(a, "float32")
    batch, m, k, n, step = _product(a, b)
    numbers = (batch, m, k, n, k, 1, n, 1, step, c_float(1), c_float(0), 0, 0)
    return (Step("gemm_f32", (*numbers, a, b, None, y), y),)


def _matmul_integer(operation: Operation) -> tuple[Step, ...]:
    a, b, y = operation.operand(0), operation.operand(1), operation.output
    operands = (
        quantised(a, zero=operation.optional(2)),
        quantised(b, zero=operation.optional(3), channels=b.shape[-1]),
    )
    return (Step("matmul_integer", (*_product(a, b), *operands, None, y), y),)


def _qlinear_matmul(operation: Operation) -> tuple[Step, ...]:
    a, b, y = operation.operand(0), operation.operand(3), operation.output
    operands = (
        quantised(a, scale=operation.operand(1), zero=operation.operand(2)),
        quantised(b, scale=operation.operand(4), zero=operation.operand(5), channels=b.shape[-1]),
        quantised(y, scale=operation.operand(6), zero=operation.operand(7), is_result=True),
    )
    return (Step("matmul_integer", (*_product(a, b), *operands, y), y),)


OPERATORS = {
    "Conv": _conv,
    "ConvInteger": _conv_integer,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MatMulInteger": _matmul_integer,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
}
