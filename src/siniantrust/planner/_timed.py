"""Timing parts on a device, as a session runs them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial

import numpy as np

from siniantrust.errors import DeviceError, DeviceLostError
from siniantrust.graph import Part
from siniantrust.odla import Arrays, CallCost, CheckedExecutable, Device, median_seconds
from siniantrust.planner._pieces import moved_bytes

_RUNS = 3
_MOST_REPEATS = 20
# The runs of a part take about so long together; a profile writes an event per node.
_PART_S = 0.2
_EVENTS = 5000
# Noise must not make a piece free that takes little beyond the call.
_LEAST_SHARE = 0.02


@dataclass(frozen=True)
class Timed:
    """Parts that were timed, and the seconds of each, the call included; the rest is that of the last one."""

    parts: tuple[Part, ...]
    seconds: tuple[float, ...]
    repeats: int
    open_s: float

    def compute_s(self, call: CallCost) -> np.ndarray:
        """Return the seconds without the call."""
        total = np.array(self.seconds)
        calls = np.array([call.latency_s(*moved_bytes(part)) for part in self.parts])
        compute_s: np.ndarray = np.maximum(total - calls, _LEAST_SHARE * total)
        return compute_s


def time_parts(device: Device, parts: Sequence[Part], inputs: Sequence[Arrays]) -> Timed:
    """Time parts one after the other, as a session runs them.

    No two of them are open at a time: threads of idle ones may wait for work in a busy loop, and take the cores.
    """
    repeats = _MOST_REPEATS
    open_s = 0.0
    seconds = []
    nodes = max((len(part.node_names) for part in parts), default=1)
    for part, arrays in zip(parts, inputs, strict=True):
        with ExitStack() as stack:
            start = time.perf_counter()
            call = _opened(stack, device, part, arrays)
            open_s = time.perf_counter() - start
            start = time.perf_counter()
            call()
            once_s = max(time.perf_counter() - start, 1e-9)
            repeats = int(np.clip(min(_PART_S / once_s, _EVENTS / nodes), _RUNS, _MOST_REPEATS))
            seconds += median_seconds([call], repeats=repeats)
    return Timed(tuple(parts), tuple(seconds), repeats, open_s)


def _opened(stack: ExitStack, device: Device, part: Part, inputs: Arrays) -> Callable[[], object]:
    executable = stack.enter_context(closing(CheckedExecutable(device.compile(part), part, device.spec)))
    try:
        executable.run(inputs)
    except DeviceLostError:
        raise
    except DeviceError:
        # A session would stop at NaN; random inputs may well lead to it.
        executable.inner.run(inputs)
        return partial(executable.inner.run, inputs)
    return partial(executable.run, inputs)
