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
# Runs and profiles of a device take about a second each; a profile writes an event per node.
_TIME_S = 1.0
_EVENTS = 5000
# Noise must not make a piece free that takes little beyond the call.
_LEAST_SHARE = 0.02


@dataclass(frozen=True)
class Timed:
    """Parts that were timed in turns, and the seconds of each, the call included."""

    parts: tuple[Part, ...]
    seconds: tuple[float, ...]
    repeats: int

    def compute_s(self, call: CallCost) -> np.ndarray:
        """Return the seconds without the call."""
        total = np.array(self.seconds)
        calls = np.array([call.latency_s(*moved_bytes(part)) for part in self.parts])
        compute_s: np.ndarray = np.maximum(total - calls, _LEAST_SHARE * total)
        return compute_s


def time_parts(device: Device, parts: Sequence[Part], inputs: Sequence[Arrays]) -> Timed:
    """Time parts in turns, as a session runs them."""
    with ExitStack() as stack:
        calls = [_opened(stack, device, part, arrays) for part, arrays in zip(parts, inputs, strict=True)]
        start = time.perf_counter()
        for call in calls:
            call()
        once_s = max(time.perf_counter() - start, 1e-9)
        nodes = max((len(part.node_names) for part in parts), default=1)
        repeats = int(np.clip(min(_TIME_S / once_s, _EVENTS / nodes), _RUNS, _MOST_REPEATS))
        return Timed(tuple(parts), tuple(median_seconds(calls, repeats=repeats)), repeats)


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
