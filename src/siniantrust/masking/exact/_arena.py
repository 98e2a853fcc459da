"""Arrays that are used again: the kernel clears fresh memory page by page, which costs as much as a pass over it."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike


class Arena:
    """Hands out arrays of any content and takes them back. Safe for several threads.

    Buffers have sizes that are powers of two, so that one is found for many shapes.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[np.ndarray]] = {}
        self._lock = threading.Lock()

    def take(self, shape: Sequence[int], dtype: DTypeLike) -> np.ndarray:
        """Return an array of any content, contiguous."""
        size_bytes = 1 << (math.prod(shape) * np.dtype(dtype).itemsize - 1).bit_length()
        with self._lock:
            free = self._free.get(size_bytes)
            buffer = free.pop() if free else None
        return np.ndarray(shape, dtype, buffer=np.empty(size_bytes, np.uint8) if buffer is None else buffer)

    def give(self, array: np.ndarray) -> None:
        """Take back an array from ``take``, or a reshaped one, which nothing may read or write from now on."""
        buffer = array.base
        if not isinstance(buffer, np.ndarray) or buffer.dtype != np.uint8:
            raise ValueError("arena: expected an array that was taken from it")
        with self._lock:
            self._free.setdefault(len(buffer), []).append(buffer)
