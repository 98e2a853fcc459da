"""Poolings."""

from __future__ import annotations

import math

from siniantrust.lowering._values import Operation, RefusedError, Step, require_dtype
from siniantrust.lowering._windows import window_of


def _max_pool(operation: Operation) -> tuple[Step, ...]:
    x, y = operation.operand(0), operation.output
    require_dtype(x, "float32", "int8", "uint8")
    window = window_of(operation, x, operation.attribute("kernel_shape", ())).text()
    if x.dtype == "float32":
        return (Step("max_pool_f32", (window, x, y), y),)
    return (Step("max_pool_integer", (window, "S8" if x.dtype == "int8" else "U8", x, y), y),)


def _average_pool(operation: Operation) -> tuple[Step, ...]:
    x, y = operation.operand(0), operation.output
    require_dtype(x, "float32")
    count_padding = operation.attribute("count_include_pad", 0)
    if count_padding and operation.attribute("ceil_mode", 0):
        raise RefusedError("ceil_mode with count_include_pad cannot be lowered: runtimes differ in what they count")
    window = window_of(operation, x, operation.attribute("kernel_shape", ())).text()
    return (Step("average_pool_f32", (window, count_padding, x, y), y),)


def _global_pool(operation: Operation) -> tuple[Step, ...]:
    x, y = operation.operand(0), operation.output
    require_dtype(x, "float32")
    kernel = "global_max_f32" if operation.op_type == "GlobalMaxPool" else "global_average_f32"
    return (Step(kernel, (math.prod(x.shape[:2]), math.prod(x.shape[2:]), x, y), y),)


OPERATORS = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "MaxPool": _max_pool,
}
