"""Arrays that are used again: the kernel clears fresh memory page by page, which costs as much as a pass over it."""

from __future__ import annotations

import bisect
import math
import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

# A larger buffer than this many times what is wanted is left for others.
_MOST_WASTE = 4


class Arena:
    """Hands out arrays of any content and takes them back. Safe for several threads."""

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []
        self._lock = threading.Lock()

    def take(self, shape: Sequence[int], dtype: DTypeLike) -> np.ndarray:
        """Return an array of any content, contiguous."""
        size_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        with self._lock:
            place = bisect.bisect_left(self._free, size_bytes, key=len)
            fits = place < len(self._free) and len(self._free[place]) <= _MOST_WASTE * size_bytes
            buffer = self._free.pop(place) if fits else np.empty(size_bytes, np.uint8)
        return np.ndarray(shape, dtype, buffer=buffer)

    def give(self, array: np.ndarray) -> None:
        """Take back an array from ``take``, or a reshaped one, which nothing may read or write from now on."""
        buffer = array.base
        if not isinstance(buffer, np.ndarray) or buffer.dtype != np.uint8:
            raise ValueError("arena: expected an array that was taken from it")
        with self._lock:
            bisect.insort(self._free, buffer, key=len)
