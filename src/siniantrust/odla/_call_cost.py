"""What a call of a device costs beyond what it computes: handing tensors over, moving them, taking them back."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np

from siniantrust.errors import DeviceError, DeviceLostError
from siniantrust.odla._calibration import ROW_BYTES, compute_part, link_part
from siniantrust.odla._device import Device, Executable
from siniantrust.odla._least_squares import fit_non_negative
from siniantrust.odla._open_part import CheckedExecutable

REPEATS = 15
_WARM_UP = 2
_ROWS = (1, 64, 1024)  # 4 KiB, 256 KiB and 4 MiB


@dataclass(frozen=True, slots=True)
class CallCost:
    """Seconds of a call: a fixed share and one per byte in each direction. ``basis`` says how they were measured."""

    base_s: float
    seconds_per_byte_in: float
    seconds_per_byte_out: float
    basis: str

    def latency_s(self, bytes_in: float, bytes_out: float) -> float:
        """Return the seconds of one call that moves so many bytes."""
        return self.base_s + bytes_in * self.seconds_per_byte_in + bytes_out * self.seconds_per_byte_out


@runtime_checkable
class CallMeter(Protocol):
    """A device that measures the way to it by itself, because a part cannot simply be brought there."""

    def call_cost(self) -> CallCost:
        """Measure it. Raises DeviceLostError if the device does not answer."""


def measure_call(device: Device) -> CallCost:
    """Measure what a call of ``device`` costs, with small parts that only move data.

    A device that does not take these parts is counted as free to call; ``basis`` says so.

    Raises:
        DeviceLostError: if it does not answer.
    """
    if isinstance(device, CallMeter):
        return device.call_cost()
    try:
        return measure_link(device, basis="parts that only move data, called in this process")
    except DeviceLostError:
        raise
    except DeviceError:
        return CallCost(0.0, 0.0, 0.0, "not counted: the device does not take the parts that a call is measured with")


def measure_link(device: Device, *, basis: str) -> CallCost:
    """Time calls that move 4 KiB to 4 MiB in, and the same or next to nothing back.

    Raises:
        DeviceError: if the device does not take the parts.
    """
    sizes, calls = [], []
    with ExitStack() as stack:
        for output, width in (("every", ROW_BYTES), ("first", 4)):
            part = link_part(output)
            executable = stack.enter_context(closing(CheckedExecutable(device.compile(part), part, device.spec)))
            for rows in _ROWS:
                x = np.zeros((rows, ROW_BYTES // 4), np.float32)
                sizes.append((x.nbytes, rows * width))
                calls.append(partial(executable.run, {"x": x}))
        return fit_calls(sizes, median_seconds(calls), basis=basis)


def fit_calls(sizes: Sequence[tuple[int, int]], seconds: Sequence[float], *, basis: str) -> CallCost:
    """Fit the seconds of calls that moved so many bytes (in, out) by non-negative least squares."""
    rows = np.array([(1.0, bytes_in, bytes_out) for bytes_in, bytes_out in sizes])
    base_s, in_s, out_s = (float(value) for value in fit_non_negative(rows, np.array(seconds)))
    largest = max(bytes_in for bytes_in, _ in sizes)
    return CallCost(base_s, in_s, out_s, f"{basis}: medians of {REPEATS} calls of up to {largest >> 10} KiB")


def measure_speed(device: Device, reference: Device, call: CallCost) -> float:
    """Return how many times as long a small network takes on ``device`` as on ``reference``, calls aside.

    Raises:
        DeviceLostError: if the device does not answer.
        DeviceError: if it does not take the network.
    """
    part = compute_part()
    inputs = {"x": np.random.default_rng(0).standard_normal(part.inputs[0].shape).astype(np.float32)}
    with ExitStack() as stack:
        there, here = (_opened(stack, each, inputs) for each in (device, reference))
        there_s, here_s = least_seconds([there, here])
    moved = (part.inputs[0].size_bytes, part.outputs[0].size_bytes)
    return max(there_s - call.latency_s(*moved), _LEAST_SHARE * there_s) / here_s


# Where the call itself is most of the time, noise must not make the computation free.
_LEAST_SHARE = 0.05


def _opened(stack: ExitStack, device: Device, inputs: Mapping[str, np.ndarray]) -> Callable[[], object]:
    executable: Executable = stack.enter_context(closing(device.compile(compute_part())))
    return lambda: executable.run(inputs)


def median_seconds(calls: Sequence[Callable[[], object]], *, repeats: int = REPEATS) -> list[float]:
    """Call every function once a turn, ``repeats`` turns after two to warm up; return the median seconds of each."""
    return [statistics.median(record) for record in _in_turns(calls, repeats)]


def least_seconds(calls: Sequence[Callable[[], object]], *, repeats: int = REPEATS) -> list[float]:
    """Call functions as ``median_seconds`` does; return the least seconds of each.

    For the ratio of two speeds, which other work on the machine must not change.
    """
    return [min(record) for record in _in_turns(calls, repeats)]


def _in_turns(calls: Sequence[Callable[[], object]], repeats: int) -> list[list[float]]:
    taken: list[list[float]] = [[] for _ in calls]
    for turn in range(-_WARM_UP, repeats):
        for call, record in zip(calls, taken, strict=True):
            start = time.perf_counter()
            call()
            if turn >= 0:
                record.append(time.perf_counter() - start)
    return taken
