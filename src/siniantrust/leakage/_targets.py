"""What the attacks reconstruct: the inputs in unit scale, large images averaged down."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

Kind = Literal["image", "array", "token"]
"""What the attacks reconstruct: pictures (spectrograms among them), numbers, or token numbers."""

_CHANNELS = (1, 3)


def data_kind(item: tuple[int, ...]) -> Literal["image", "array"]:
    """Return ``image`` for items of shape (1 or 3, height, width), else ``array``."""
    return "image" if len(item) == 3 and item[0] in _CHANNELS else "array"  # noqa: PLR2004 - channels, height, width


def shrink_factor(item: tuple[int, ...], max_side: int) -> int:
    """Return by how much an image is averaged down so that its sides are at most ``max_side``.

    The attack is judged at that size: an easier task than the full size, so that leakage is not understated.
    """
    return max(1, math.ceil(max(item[1:]) / max_side))


def shrink(images: np.ndarray, factor: int) -> np.ndarray:
    """Average blocks of ``factor`` x ``factor`` pixels, (N, C, H, W); a rest at the edges is left out."""
    if factor == 1:
        return images
    count, channels, height, width = images.shape
    height, width = height // factor, width // factor
    blocks = images[:, :, : height * factor, : width * factor]
    small: np.ndarray = blocks.reshape(count, channels, height, factor, width, factor).mean(axis=(3, 5))
    return small


def data_range(inputs: np.ndarray) -> tuple[float, float]:
    """Return the smallest and the largest value of the attacker's inputs; a constant counts as one unit wide."""
    low, high = float(inputs.min()), float(inputs.max())
    return low, high if high > low else low + 1.0


def unit_scale(inputs: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map ``low`` to 0 and ``high`` to 1, float32; values outside stay outside."""
    return ((inputs.astype(np.float32) - low) / (high - low)).astype(np.float32)


def sound_pictures(waves: np.ndarray, sample_rate_hz: int, *, attackers: int) -> np.ndarray:
    """Return the log-mel spectrograms of sounds (N, samples) or (N, 1, samples) as pictures (N, 1, mels, frames).

    In unit scale: 0 and 1 are the smallest and largest value of the first ``attackers`` items.
    """
    from siniantrust.leakage._audio import spectrogram

    values = spectrogram(waves.reshape(len(waves), -1).astype(np.float32), sample_rate_hz).values
    return unit_scale(values, *data_range(values[:attackers]))
