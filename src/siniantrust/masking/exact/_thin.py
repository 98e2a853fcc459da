"""Sending less of an image: what convolutions with a stride and a kernel of one pixel never read stays here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from siniantrust.masking.exact._layer import Layer, Window

_POINT = Window(kernel=(1, 1), strides=(1, 1), dilations=(1, 1), pads=(0, 0, 0, 0))


def thin(layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], dict[str, tuple[int, int]]]:
    """Return the layers of an exchange as they read thinned entries, and each such entry's steps in height and width.

    An entry is thinned where all layers that read it have a kernel of 1 x 1, no padding, and the same stride, which
    then is 1.
    """
    windows: dict[str, set[Window | None]] = {}
    for layer in layers:
        windows.setdefault(layer.entry, set()).add(layer.window)
    steps: dict[str, tuple[int, int]] = {}
    for entry, found in windows.items():
        _, every = over_thinned(next(iter(found)))
        if len(found) == 1 and every != (1, 1):
            steps[entry] = every
    return tuple(replace(each, window=_POINT) if each.entry in steps else each for each in layers), steps


def over_thinned(window: Window | None) -> tuple[Window | None, tuple[int, int]]:
    """Return how a layer slides over what it reads of an image, and that it reads one of how many rows and columns."""
    if window is None or window.kernel != (1, 1) or any(window.pads):
        return window, (1, 1)
    return _POINT, window.strides


def thinned_shape(shape: tuple[int, ...], steps: tuple[int, int]) -> tuple[int, ...]:
    """Return the shape of what is left of an image, (items, channels, height, width), or of a matrix."""
    return (*shape[:2], *(-(-size // step) for size, step in zip(shape[2:], steps, strict=False)))
