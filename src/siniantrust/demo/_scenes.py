"""The demo's data: tiles of real photographs that ship inside scikit-image and scikit-learn.

The task is to say which scene a 32 x 32 tile comes from: a face, a cat, a retina scan, stained tissue, a street … The
photographs come with the two packages (their own README files state each one's origin; most are public domain or CC0),
so that ``pip install`` alone brings them and nothing is downloaded when the demo runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from siniantrust._extras import require
from siniantrust.errors import DataError

TILE = 32
_FLAT = 0.03
_HELDOUT_SHARE = 0.25

# name of the scene, file, and the factor by which the photograph is shrunk before it is tiled
_SCIKIT_IMAGE = (
    ("astronaut", "astronaut.png", 1),
    ("cat", "chelsea.png", 1),
    ("coffee", "coffee.png", 1),
    ("galaxies", "hubble_deep_field.jpg", 2),
    ("tissue", "ihc.png", 1),
    ("motorcycle", "motorcycle_left.png", 1),
    ("retina", "retina.jpg", 2),
    ("rocket", "rocket.jpg", 1),
    ("brick", "brick.png", 1),
    ("cameraman", "camera.png", 1),
    ("cell", "cell.png", 1),
    ("clock", "clock_motion.png", 1),
    ("coins", "coins.png", 1),
    ("grass", "grass.png", 1),
    ("gravel", "gravel.png", 1),
    ("moon", "moon.png", 1),
    ("print", "page.png", 1),
)
_SCIKIT_LEARN = (("temple", "china.jpg", 1), ("flower", "flower.jpg", 1))

SCENES = tuple(name for name, _, _ in _SCIKIT_IMAGE + _SCIKIT_LEARN)


@dataclass(frozen=True)
class Scenes:
    """Tiles as float32 (N, 3, 32, 32) in 0..1 and scene numbers as int64 (N,)."""

    train_inputs: np.ndarray
    train_labels: np.ndarray
    heldout_inputs: np.ndarray
    heldout_labels: np.ndarray


def _photograph(path: Path, shrink: int) -> np.ndarray:
    from PIL import Image

    if not path.is_file():
        raise DataError(f"demo photograph {path.name}: not in this version of its package; expected it at {path}")
    with Image.open(path) as image:
        pixels: np.ndarray = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    height, width = (side // shrink * shrink for side in pixels.shape[:2])
    pixels = pixels[:height, :width].reshape(height // shrink, shrink, width // shrink, shrink, 3).mean(axis=(1, 3))
    return pixels.transpose(2, 0, 1)


def _regions(photograph: np.ndarray) -> np.ndarray:
    """Cut a photograph into squares of two tiles a side: (regions, 3, 64, 64)."""
    side = 2 * TILE
    channels, height, width = photograph.shape
    rows, columns = height // side, width // side
    grid = photograph[:, : rows * side, : columns * side].reshape(channels, rows, side, columns, side)
    return grid.transpose(1, 3, 0, 2, 4).reshape(rows * columns, channels, side, side)


def _tiles(regions: np.ndarray) -> np.ndarray:
    """Make five tiles of each region, its four quarters and the whole at half size, and keep those that show something.

    Tiles whose pixels hardly differ (standard deviation below 0.03: black sky, blank paper) are left out, since there
    is nothing on them to hide.
    """
    count = len(regions)
    quarters = regions.reshape(count, 3, 2, TILE, 2, TILE).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 3, TILE, TILE)
    halved = regions.reshape(count, 3, TILE, 2, TILE, 2).mean(axis=(3, 5), dtype=np.float32)
    tiles: np.ndarray = np.concatenate([quarters, halved])
    kept: np.ndarray = tiles[tiles.std(axis=(1, 2, 3)) > _FLAT]
    return kept


def load_scenes(*, heldout: int = 1000, seed: int = 0) -> Scenes:
    """Cut every photograph into tiles and hold ``heldout`` of them back.

    Held-out tiles come from regions of the photographs of which no training tile shows a pixel.

    Raises:
        MissingExtraError: if scikit-image, scikit-learn or pillow is not installed.
        DataError: if an installed version lacks a photograph, or they give fewer than ``heldout`` tiles.
    """
    folders = {
        "skimage": Path(str(require("skimage.data", extra="demo").__file__)).parent,
        "sklearn": Path(str(require("sklearn.datasets", extra="demo").__file__)).parent / "images",
    }
    require("PIL", extra="demo")
    sources = [(folders["skimage"] / file, shrink) for _, file, shrink in _SCIKIT_IMAGE]
    sources += [(folders["sklearn"] / file, shrink) for _, file, shrink in _SCIKIT_LEARN]
    rng = np.random.default_rng(seed)
    train: list[tuple[np.ndarray, np.ndarray]] = []
    held: list[tuple[np.ndarray, np.ndarray]] = []
    for scene, (path, shrink) in enumerate(sources):
        regions = _regions(_photograph(path, shrink))
        regions = regions[rng.permutation(len(regions))]
        border = round(len(regions) * _HELDOUT_SHARE)
        for part, chosen in ((held, regions[:border]), (train, regions[border:])):
            tiles = _tiles(chosen)
            part.append((tiles, np.full(len(tiles), scene, dtype=np.int64)))
    train_inputs, train_labels = _shuffled(train, rng)
    heldout_inputs, heldout_labels = _shuffled(held, rng)
    if len(heldout_inputs) < heldout:
        raise DataError(f"demo photographs: {len(heldout_inputs)} held-out tiles; expected at least {heldout}")
    return Scenes(train_inputs, train_labels, heldout_inputs[:heldout], heldout_labels[:heldout])


def _shuffled(parts: list[tuple[np.ndarray, np.ndarray]], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    inputs = np.concatenate([tiles for tiles, _ in parts])
    labels = np.concatenate([scene for _, scene in parts])
    order = rng.permutation(len(inputs))
    return inputs[order], labels[order]
