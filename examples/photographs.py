"""Photographs that ship inside scikit-image and scikit-learn, as inputs of an ImageNet network."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

_SCIKIT_IMAGE = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
)
_SCIKIT_LEARN = ("china.jpg", "flower.jpg")
_CELL = 96
_FLAT = 0.03


def _folder(package: str, *below: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{package} is not installed; run: pip install 'siniantrust[demo]'")
    return Path(spec.origin).parent.joinpath(*below)


def paths() -> list[Path]:
    """Return the photographs' files."""
    skimage, sklearn = _folder("skimage", "data"), _folder("sklearn", "datasets", "images")
    return [*(skimage / name for name in _SCIKIT_IMAGE), *(sklearn / name for name in _SCIKIT_LEARN)]


def _array(image: Image.Image, side: int) -> np.ndarray:
    resized = image.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32).transpose(2, 0, 1) / 255


def centre(path: Path, side: int) -> np.ndarray:
    """Return the largest centred square of a photograph as float32 (3, side, side) in 0..1."""
    with Image.open(path) as image:
        width, height = image.size
        edge = min(width, height)
        left, top = (width - edge) // 2, (height - edge) // 2
        return _array(image.convert("RGB").crop((left, top, left + edge, top + edge)), side)


def cells(side: int, *, limit: int, seed: int = 0) -> np.ndarray:
    """Cut all photographs into cells of 96 pixels and enlarge them: float32 (N <= limit, 3, side, side) in 0..1.

    No two cells share a pixel, so that what an attacker learns from one shows nothing of another. Cells on which
    nothing is to be seen (standard deviation below 0.03) are left out; order is random.
    """
    found = []
    for path in paths():
        with Image.open(path) as image:
            photograph = image.convert("RGB")
            for top in range(0, photograph.height - _CELL + 1, _CELL):
                for left in range(0, photograph.width - _CELL + 1, _CELL):
                    cell = photograph.crop((left, top, left + _CELL, top + _CELL))
                    if np.asarray(cell).std() / 255 > _FLAT:
                        found.append(cell)
    order = np.random.default_rng(seed).permutation(len(found))[:limit]
    return np.stack([_array(found[index], side) for index in order])
