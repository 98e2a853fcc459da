"""Operators that move bytes, or only look at them in another shape."""

from __future__ import annotations

import math

import numpy as np

from siniantrust.lowering._values import Operation, RefusedError, Step


def _view(operation: Operation) -> tuple[Step, ...]:
    x, y = operation.operand(0), operation.output
    return (Step("copy_blocks", (1, y.size_bytes, y.size_bytes, 0, x, y), y, view_of=x),)


def _dropout(operation: Operation) -> tuple[Step, ...]:
    if operation.optional(2) is not None:
        raise RefusedError("a training mode that is an input cannot be lowered")
    return _view(operation)


def _concat(operation: Operation) -> tuple[Step, ...]:
    y = operation.output
    axis = operation.attribute("axis", 1) % len(y.shape)
    item_bytes = np.dtype(y.dtype).itemsize
    count, step = math.prod(y.shape[:axis]), math.prod(y.shape[axis:]) * item_bytes
    steps, offset = [], 0
    for position in range(len(operation.inputs)):
        x = operation.operand(position)
        size = math.prod(x.shape[axis:]) * item_bytes
        steps.append(Step("copy_blocks", (count, size, step, offset, x, y), y))
        offset += size
    return tuple(steps)


OPERATORS = {
    "Concat": _concat,
    "Dropout": _dropout,
    **dict.fromkeys(("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"), _view),
}
