"""Feature maps as pictures: what the similarity screens compare with the input."""

from __future__ import annotations

import math

import numpy as np

from siniantrust.leakage._features import FeatureSet


def feature_maps(features: FeatureSet, rows: slice, most: int) -> np.ndarray:
    """Return maps (rows, channels, height, width) of the largest tensor, float32, at most ``most`` channels.

    Maps (C, H, W) are taken as they are; channels beyond ``most`` are thinned out evenly. A vector or a sequence
    becomes one map: the smallest square that holds it, filled up with its own minimum.
    """
    sizes = [math.prod(shape) for shape in features.shapes]
    index = int(np.argmax(sizes))
    values = features.original(index, rows)
    if values.ndim == 4:  # noqa: PLR2004 - (rows, channels, height, width)
        channels = values.shape[1]
        chosen = np.unique(np.linspace(0, channels - 1, min(most, channels)).round().astype(int))
        return values[:, chosen]
    flat = values.reshape(len(values), -1)
    side = math.ceil(math.sqrt(flat.shape[1]))
    filled = np.repeat(flat.min(axis=1, keepdims=True), side * side, axis=1)
    filled[:, : flat.shape[1]] = flat
    return filled.reshape(-1, 1, side, side)


def normalised(maps: np.ndarray) -> np.ndarray:
    """Stretch each map (the last two axes) to 0..1; a constant map becomes 0."""
    low = maps.min(axis=(-2, -1), keepdims=True)
    span = maps.max(axis=(-2, -1), keepdims=True) - low
    stretched: np.ndarray = (maps - low) / np.where(span > 0, span, 1)
    return stretched


def rescaled(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize maps (N, C, h, w) to (N, C, height, width), bilinearly."""
    import torch

    images = torch.as_tensor(np.ascontiguousarray(maps, dtype=np.float32))
    return np.asarray(torch.nn.functional.interpolate(images, size=(height, width), mode="bilinear"))
