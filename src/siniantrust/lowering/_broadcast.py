"""Broadcasting: shapes, and how far a kernel goes in an operand for one step along each axis of a result."""

from __future__ import annotations

import math
from collections.abc import Sequence

from siniantrust.lowering._values import RefusedError, Value

MAX_RANK = 6  # as in kernels.h


def padded(shape: Sequence[int], target: Value) -> str:
    """Return the C array of a result's shape, with leading axes of size 1.

    Raises:
        RefusedError: for more axes than kernels have loops, naming the ``target``.
    """
    if len(shape) > MAX_RANK:
        raise RefusedError(f"'{target.name}' has {len(shape)} axes, at most {MAX_RANK} can be lowered")
    return c_numbers((1,) * (MAX_RANK - len(shape)) + tuple(shape))


def steps_in(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the steps in an operand of this shape; one of 0 repeats it along an axis."""
    steps = [0 if size == 1 else math.prod(shape[axis + 1 :]) for axis, size in enumerate(shape)]
    return (0,) * (MAX_RANK - len(shape)) + tuple(steps)


def c_numbers(values: Sequence[int]) -> str:
    """Return a C array of integers."""
    return f"(const int32_t[]){{{', '.join(map(str, values))}}}"
