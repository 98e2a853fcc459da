"""The data of the leakage study: the demo's photograph tiles, and Fashion-MNIST from Debian's package."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from siniantrust.demo import SCENES, load_scenes
from siniantrust.errors import DataError

_PACKAGE = "dataset-fashion-mnist"
_INSIDE = Path("usr/share/datasets/fashion-mnist")
_FASHION_CLASSES = 10
_HEADER_BYTES = {"images": 16, "labels": 8}
_PIXELS = 28


@dataclass(frozen=True, slots=True)
class Items:
    """Images float32 (N, channels, side, side) in 0..1 with class numbers int64 (N,): to learn from, and held out."""

    train_inputs: np.ndarray = field(repr=False)
    train_labels: np.ndarray = field(repr=False)
    heldout_inputs: np.ndarray = field(repr=False)
    heldout_labels: np.ndarray = field(repr=False)
    classes: int


def scenes(cache: Path, *, items: int, heldout: int, seed: int) -> Items:
    """Return tiles of photographs; each seed holds out other regions of them."""
    _ = cache
    found = load_scenes(heldout=heldout, seed=seed)
    return Items(
        found.train_inputs[:items],
        found.train_labels[:items],
        found.heldout_inputs,
        found.heldout_labels,
        len(SCENES),
    )


def fashion(cache: Path, *, items: int, heldout: int, seed: int) -> Items:
    """Return articles of clothing (Xiao, Rasul, Vollgraf 2017): training and test items, drawn by the seed."""
    folder = _fashion_folder(cache)
    generator = np.random.default_rng(seed)
    parts = []
    for part, count in (("train", items), ("t10k", heldout)):
        images, labels = _read(folder, part, "images"), _read(folder, part, "labels")
        rows = generator.permutation(len(labels))[:count]
        pixels = images.reshape(-1, 1, _PIXELS, _PIXELS)[rows].astype(np.float32) / 255
        parts += [pixels, labels[rows].astype(np.int64)]
    return Items(parts[0], parts[1], parts[2], parts[3], _FASHION_CLASSES)


def _read(folder: Path, part: str, what: str) -> np.ndarray:
    path = next(folder.glob(f"{part}-{what}-idx*-ubyte.gz"), None)
    if path is None:
        raise DataError(f"Fashion-MNIST: no {part}-{what} file in {folder}; install the package {_PACKAGE} again")
    return np.frombuffer(gzip.decompress(path.read_bytes()), dtype=np.uint8, offset=_HEADER_BYTES[what])


def _fashion_folder(cache: Path) -> Path:
    """Return where the package's files are: installed, unpacked before, or fetched and unpacked now without root.

    Raises:
        DataError: if it can be had in none of these ways.
    """
    unpacked = cache / _PACKAGE
    for folder in (Path("/") / _INSIDE, unpacked / _INSIDE):
        if folder.is_dir():
            return folder
    tools = [shutil.which("apt-get"), shutil.which("dpkg-deb")]
    advice = f"install Debian's package {_PACKAGE} (apt-get install {_PACKAGE})"
    if tools[0] is None or tools[1] is None:
        raise DataError(f"Fashion-MNIST: apt-get and dpkg-deb are not here to fetch it with; {advice}")
    unpacked.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run([tools[0], "download", _PACKAGE], cwd=unpacked, check=True, capture_output=True, text=True)
        archive = next(unpacked.glob("*.deb"))
        subprocess.run([tools[1], "-x", str(archive), str(unpacked)], check=True, capture_output=True, text=True)
    except (subprocess.CalledProcessError, StopIteration) as error:
        said = error.stderr.strip().splitlines()[-1:] if isinstance(error, subprocess.CalledProcessError) else []
        raise DataError(
            f"Fashion-MNIST: fetching it failed ({' '.join(said) or 'no archive came'}); {advice}"
        ) from None
    archive.unlink()
    return unpacked / _INSIDE


DATA: dict[str, Callable[..., Items]] = {"scenes": scenes, "fashion": fashion}
