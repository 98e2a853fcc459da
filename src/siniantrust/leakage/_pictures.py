"""Strips of small pictures: originals and what attacks made of them."""

from __future__ import annotations

import io

import numpy as np

ITEMS = 8
_TILE = 64


def strip_png(*rows: np.ndarray) -> bytes:
    """Return a PNG of up to 8 images (N, 1 or 3, H, W) in unit scale, side by side, enlarged by whole factors.

    Several rows stand below each other. Each tile is at least about 64 pixels high; values outside 0..1 are shown as
    black or white.
    """
    from PIL import Image

    strip = np.concatenate([_row(images) for images in rows])
    stream = io.BytesIO()
    Image.fromarray(strip[:, :, 0] if strip.shape[2] == 1 else strip).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _row(images: np.ndarray) -> np.ndarray:
    factor = max(1, _TILE // images.shape[2])
    tiles = (images[:ITEMS].clip(0, 1) * 255).round().astype(np.uint8)
    tiles = tiles.repeat(factor, axis=2).repeat(factor, axis=3)
    row: np.ndarray = np.concatenate(list(tiles), axis=2).transpose(1, 2, 0)
    return row
