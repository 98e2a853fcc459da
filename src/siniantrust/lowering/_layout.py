"""Operators that move bytes, or only look at them in another shape."""

from __future__ import annotations

import math

import numpy as np

from siniantrust.lowering._values import KINDS, Operation, RefusedError, Step, require_dtype


def view(operation: Operation) -> tuple[Step, ...]:
    """Return the first input's bytes as the output."""
    x, y = operation.operand(0), operation.output
    return (Step("copy_blocks", (1, y.size_bytes, y.size_bytes, 0, x, y), y, view_of=x),)


def _dropout(operation: Operation) -> tuple[Step, ...]:
    if operation.optional(2) is not None:
        raise RefusedError("a training mode that is an input cannot be lowered")
    return view(operation)


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


def _gather(operation: Operation) -> tuple[Step, ...]:
    """Pick along an axis by indices, which count from the end where they are negative.

    An index out of range is refused where it is known. Where it is computed, or sealed with the weights, the kernel
    takes the nearest one instead.
    """
    x, indices, y = operation.operand(0), operation.operand(1), operation.output
    require_dtype(indices, "int32", "int64")
    rank, axis = len(x.shape), operation.attribute("axis", 0)
    if not -rank <= axis < rank:
        raise RefusedError(f"'{x.name}', {list(x.shape)}, has no axis {axis}")
    axis %= rank
    length, known = x.shape[axis], operation.integers(1)
    if known is not None and known.size and not -length <= known.min() <= known.max() < length:
        raise RefusedError(
            f"'{indices.name}' has indices from {known.min()} to {known.max()}, but axis {axis} of '{x.name}' has "
            f"{length} elements"
        )
    if not length:
        raise RefusedError(f"axis {axis} of '{x.name}' has no elements")
    if y.shape != (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]):
        picked = f"picking {list(indices.shape)} from axis {axis} of {list(x.shape)}"
        raise RefusedError(f"{picked} is not '{y.name}', {list(y.shape)}")
    outer, size = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :]) * np.dtype(x.dtype).itemsize
    return (Step("gather", (outer, length, size, indices.elements, KINDS[indices.dtype], x, indices, y), y),)


OPERATORS = {
    "Concat": _concat,
    "Dropout": _dropout,
    "Gather": _gather,
    **dict.fromkeys(("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"), view),
}
