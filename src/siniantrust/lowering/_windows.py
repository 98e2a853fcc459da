"""Windows over planes: what convolutions and poolings have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from siniantrust.lowering._values import Operation, RefusedError, Value

_PLANE_RANKS = (3, 4)


@dataclass(frozen=True, slots=True)
class Window:
    """The argument ``struct window``; one-dimensional planes have height 1."""

    source: Value
    target: Value
    kernel: tuple[int, int]
    strides: tuple[int, int]
    begins: tuple[int, int]
    dilations: tuple[int, int]

    def text(self) -> str:
        """Return the C expression."""
        batch, channels, height, width = _as_planes(self.source.shape)
        *_, out_height, out_width = _as_planes(self.target.shape)
        planes = (batch, channels, height, width, out_height, out_width)
        numbers = (*planes, *self.kernel, *self.strides, *self.begins, *self.dilations)
        return f"&(const struct window){{{', '.join(map(str, numbers))}}}"


def window_of(operation: Operation, source: Value, kernel: Sequence[int]) -> Window:
    """Read strides, pads and dilations of a node (operators Conv-11, MaxPool-12, AveragePool-19).

    Raises:
        RefusedError: for planes that are neither lines nor areas, and for negative padding.
    """
    if len(source.shape) not in _PLANE_RANKS:
        raise RefusedError(f"'{source.name}' has {len(source.shape)} axes; only one or two spatial axes can be lowered")
    spatial = len(source.shape) - 2
    given = operation.attribute("kernel_shape", None)
    if len(kernel) != spatial or (given is not None and tuple(given) != tuple(kernel)):
        raise RefusedError(f"kernel {list(given or kernel)} does not fit its operands")
    strides = operation.attribute("strides", [1] * spatial)
    dilations = operation.attribute("dilations", [1] * spatial)
    begins = _begins(operation, source, kernel, strides, dilations)
    if min(begins) < 0:
        raise RefusedError(f"negative padding, {begins}, cannot be lowered")
    return Window(
        source=source,
        target=operation.outputs[0],
        kernel=_pair(kernel),
        strides=_pair(strides),
        begins=_pair(begins, 0),
        dilations=_pair(dilations),
    )


def _begins(
    operation: Operation, source: Value, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[int]:
    """Return the padding before the first element of each spatial axis."""
    spatial = len(kernel)
    automatic = bytes(operation.attribute("auto_pad", b"NOTSET"))
    if automatic == b"NOTSET":
        pads: list[int] = list(operation.attribute("pads", [0] * 2 * spatial))
        if min(pads) < 0:
            raise RefusedError(f"negative padding, {pads}, cannot be lowered")
        return pads[:spatial]
    if automatic == b"VALID":
        return [0] * spatial
    begins = []
    sizes = zip(source.shape[2:], operation.outputs[0].shape[2:], kernel, strides, dilations, strict=True)
    for size, out_size, taps, stride, dilation in sizes:
        total = max((out_size - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
        begins.append(total // 2 if automatic == b"SAME_UPPER" else total - total // 2)
    return begins


def _as_planes(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape if len(shape) == _PLANE_RANKS[-1] else (*shape[:2], 1, *shape[2:])


def _pair(values: Sequence[int], missing: int = 1) -> tuple[int, int]:
    first, second = values if len(values) > 1 else (missing, *values)
    return first, second
