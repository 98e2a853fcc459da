"""Reductions over the last axes."""

from __future__ import annotations

import math

from siniantrust.lowering._values import Operation, RefusedError, Step, require_dtype


def _l2(operation: Operation) -> tuple[Step, ...]:
    x, y = operation.operand(0), operation.output
    require_dtype(x, "float32")
    if operation.attribute("noop_with_empty_axes", 0):
        raise RefusedError("noop_with_empty_axes cannot be lowered")
    # Axes may be an input that is sealed: shapes tell them, but for those of one element, which change nothing.
    kept = next((axis for axis, size in enumerate(x.shape) if y.shape[axis : axis + 1] != (size,)), len(x.shape))
    if math.prod(y.shape[kept:]) != 1:
        raise RefusedError("only the last axes, all of them from one on, can be reduced")
    return (Step("l2_f32", (math.prod(x.shape[:kept]), math.prod(x.shape[kept:]), x, y), y),)


OPERATORS = {"ReduceL2": _l2}
