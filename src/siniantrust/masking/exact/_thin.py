"""Sending less of an image: what convolutions with a stride and a kernel of one pixel never read stays here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from siniantrust.masking.exact._layer import Layer, Window


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
        window = next(iter(found)) if len(found) == 1 else None
        if window is not None and window.kernel == (1, 1) and not any(window.pads) and window.strides != (1, 1):
            steps[entry] = window.strides
    return tuple(_with_unit_stride(layer) if layer.entry in steps else layer for layer in layers), steps


def _with_unit_stride(layer: Layer) -> Layer:
    return replace(layer, window=Window(kernel=(1, 1), strides=(1, 1), dilations=(1, 1), pads=(0, 0, 0, 0)))
