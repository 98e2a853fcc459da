"""Quantised operands, and the operators that go from numbers to integers and back."""

from __future__ import annotations

import math

from siniantrust.lowering._values import Operation, Quantised, RefusedError, Step, Value, require_dtype

_KINDS = ("int8", "uint8")


def quantised(
    value: Value,
    *,
    scale: Value | None = None,
    zero: Value | None = None,
    channels: int = 1,
    is_result: bool = False,
    kinds: tuple[str, ...] = _KINDS,
) -> Quantised:
    """Describe a quantised operand whose scale and zero point are one number each, or one for each of ``channels``.

    Raises:
        RefusedError: for other dtypes or numbers of scales.
    """
    require_dtype(value, *kinds)
    if scale is not None:
        require_dtype(scale, "float32")
    sizes = {entry.elements for entry in (scale, zero) if entry is not None}
    if not sizes <= {1} and sizes != {channels}:
        found = ", ".join(str(list(entry.shape)) for entry in (scale, zero) if entry is not None)
        raise RefusedError(f"scale and zero point of '{value.name}' have shapes {found}: neither one nor {channels}")
    return Quantised(None if is_result else value, value.dtype, scale, zero, int(not sizes <= {1}))


def _axis(operation: Operation, value: Value, scale: Value) -> tuple[int, int, int]:
    """Return the sizes before, of, and behind the axis along which the scale changes."""
    if operation.attribute("block_size", 0):
        raise RefusedError("scales by blocks cannot be lowered")
    if scale.elements == 1:
        return 1, 1, value.elements
    axis = operation.attribute("axis", 1) % len(value.shape)
    return math.prod(value.shape[:axis]), value.shape[axis], math.prod(value.shape[axis + 1 :])


def _quantise(operation: Operation) -> tuple[Step, ...]:
    x, scale, y = operation.operand(0), operation.operand(1), operation.output
    require_dtype(x, "float32")
    sizes = _axis(operation, x, scale)
    target = quantised(y, scale=scale, zero=operation.optional(2), channels=sizes[1], is_result=True)
    return (Step("quantise", (*sizes, target, x, y), y),)


def _dequantise(operation: Operation) -> tuple[Step, ...]:
    x, scale, y = operation.operand(0), operation.operand(1), operation.output
    require_dtype(y, "float32")
    sizes = _axis(operation, x, scale)
    source = quantised(x, scale=scale, zero=operation.optional(2), channels=sizes[1], kinds=(*_KINDS, "int32"))
    return (Step("dequantise", (*sizes, source, y), y),)


OPERATORS = {"DequantizeLinear": _dequantise, "QuantizeLinear": _quantise}
