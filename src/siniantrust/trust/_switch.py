"""What taking turns costs: enclave and device each find caches, clocks and threads as the other one left them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

import numpy as np

from siniantrust.errors import DeviceError, DeviceLostError
from siniantrust.odla import CheckedExecutable, Device, ModelHolder, compute_part
from siniantrust.trust._crossing import has_room, load_sealed
from siniantrust.trust._types import Enclave

_REPEATS = 15
_ENOUGH_S = 3.0
_FEW_REPEATS = 3


def measure_switch(enclave: Enclave, device: Device) -> float:
    """Return the seconds that a call of each, one right after the other, takes beyond calls that follow their like.

    A small network runs in the enclave, which keeps it as ``crossing-network``, and on the device. Where either has no
    place for it, switching is counted as free.

    Raises:
        EnclaveError: if the enclave cannot load the network.
        DeviceLostError: if the device does not answer.
    """
    part = compute_part()
    if not has_room(enclave, part):
        return 0.0
    inputs = {"x": np.random.default_rng(0).standard_normal(part.inputs[0].shape).astype(np.float32)}
    there = device.calibration() if isinstance(device, ModelHolder) else device
    try:
        executable = CheckedExecutable(there.compile(part), part, there.spec)
    except DeviceLostError:
        raise
    except DeviceError:
        return 0.0
    with closing(executable):
        inside = load_sealed(enclave, "crossing-network", part, inputs)
        return _beyond(inside, partial(executable.run, inputs))


def _beyond(first: Callable[[], object], second: Callable[[], object]) -> float:
    """Time each after itself, and both after each other; return the median of what the latter takes longer."""
    excess: list[float] = []
    start = time.perf_counter()
    while len(excess) < _REPEATS and (len(excess) < _FEW_REPEATS or time.perf_counter() - start < _ENOUGH_S):
        alone_s = 0.0
        for call in (first, second):
            call()
            alone_s += _seconds(call)
        excess.append(_seconds(first) + _seconds(second) - alone_s)
    return max(statistics.median(excess), 0.0)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
