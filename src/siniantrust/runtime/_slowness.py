"""Has a device become slow? Its latest calls against its own first ones."""

from __future__ import annotations

import statistics
import threading
from collections import deque
from collections.abc import Mapping

import numpy as np

FIRST_CALLS = 16
LATEST_CALLS = 8
# Requests of more different shapes than these are not watched; each shape has a latency of its own.
_SHAPES = 64

Shapes = tuple[tuple[int, ...], ...]


class Slowness:
    """The latencies of one part on one device.

    Args:
        factor: how many times the median of the first calls the median of the latest ones may be; None: any.
    """

    def __init__(self, factor: float | None) -> None:
        self._factor = factor
        self._lock = threading.Lock()
        self._first: dict[Shapes, list[float]] = {}
        self._latest: dict[Shapes, deque[float]] = {}

    def note(self, inputs: Mapping[str, np.ndarray], latency_s: float) -> str | None:
        """Take in a call, and return how slow the device is if it is too slow; then counting begins anew."""
        if self._factor is None:
            return None
        shapes = tuple(array.shape for array in inputs.values())
        with self._lock:
            first = self._first.get(shapes)
            if first is None:
                if len(self._first) >= _SHAPES:
                    return None
                first = self._first[shapes] = []
            if len(first) < FIRST_CALLS:
                first.append(latency_s)
                return None
            latest = self._latest.setdefault(shapes, deque(maxlen=LATEST_CALLS))
            latest.append(latency_s)
            usual_s, now_s = statistics.median(first), statistics.median(latest)
            if len(latest) < LATEST_CALLS or now_s <= self._factor * usual_s:
                return None
            latest.clear()
        return f"it takes {now_s * 1e3:.3g} ms, at first {usual_s * 1e3:.3g} ms"

    def forget(self) -> None:
        """Begin anew: the device was opened again, and may be another one."""
        with self._lock:
            self._first.clear()
            self._latest.clear()
