"""The body of a program's file: arrays one after the other, found again by places that the head holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

_DTYPES = ("int8", "uint8", "float32")


class Body:
    """Collects arrays one after the other, each at a multiple of eight bytes."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size_bytes = 0

    def add(self, array: np.ndarray) -> dict[str, Any]:
        """Append an array; return where it lies, for ``taken``."""
        place = {"at": self._size_bytes, "dtype": str(array.dtype), "shape": list(array.shape)}
        raw = np.ascontiguousarray(array).tobytes()
        raw += bytes(-len(raw) % 8)
        self._pieces.append(raw)
        self._size_bytes += len(raw)
        return place

    def add_bytes(self, raw: bytes) -> dict[str, Any]:
        """Append bytes."""
        return self.add(np.frombuffer(raw, np.uint8))

    def joined(self) -> bytes:
        """Return the whole body."""
        return b"".join(self._pieces)


def taken(place: Mapping[str, Any], body: memoryview) -> np.ndarray:
    """Return a copy of an array in the body, which may be overwritten later.

    Raises:
        ValueError: if it lies outside the body, or is of a dtype that no program has.
    """
    if place["dtype"] not in _DTYPES:
        raise ValueError(f"dtype {place['dtype']}")
    shape, at = tuple(int(size) for size in place["shape"]), int(place["at"])
    size_bytes = math.prod(shape) * np.dtype(place["dtype"]).itemsize
    if min(shape, default=0) < 0 or at < 0 or at + size_bytes > len(body):
        raise ValueError("an array lies outside the body")
    raw = np.frombuffer(body[at : at + size_bytes], np.uint8).copy()
    array: np.ndarray = raw.view(place["dtype"]).reshape(shape)
    return array
