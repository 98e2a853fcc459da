"""One untrusted part on one device: opened when first needed, freed when it was left and the last call is done."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from siniantrust.errors import DeviceLostError, SinianError
from siniantrust.graph import Part
from siniantrust.odla import (
    Artifact,
    CallCost,
    CheckedExecutable,
    Device,
    DeviceInfo,
    DeviceSpec,
    measure_call,
    open_part,
)
from siniantrust.runtime._deadline import Deadline
from siniantrust.runtime._slowness import Slowness


@dataclass(eq=False)
class _Opened:
    """An open device with the part on it, and how many calls use it."""

    device: Device
    executable: CheckedExecutable
    calls: int = 0
    is_left: bool = False

    def free(self) -> None:
        try:
            self.executable.close()
        finally:
            self.device.close()


class Seat:
    """A part on a device.

    ``reserved`` counts the requests that were sent here and are not done; the stage that chooses among seats keeps it.
    """

    def __init__(
        self,
        part: Part,
        spec: DeviceSpec,
        *,
        deadline: Deadline,
        slow_factor: float | None,
        artifacts: Sequence[Artifact] = (),
    ) -> None:
        self.name = spec.name
        self.reserved = 0
        self._part = part
        self._spec = spec
        self._artifacts = tuple(artifacts)
        self._deadline = deadline
        self._slowness = Slowness(slow_factor)
        self._lock = threading.Lock()
        self._current: _Opened | None = None
        self._is_closed = False

    def open(self) -> None:
        """Open the device and compile the part on it, unless that was done.

        Raises:
            DeviceError: if the device is not there or refuses the part.
        """
        self._exit(self._enter())

    def info(self) -> DeviceInfo:
        """Describe the device, opening it if it is not open."""
        opened = self._enter()
        try:
            return opened.device.info()
        finally:
            self._exit(opened)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the part once.

        Raises:
            DeviceLostError: if the device is gone, or did not answer in time; the next call opens it again.
            DeviceError: if it refuses, fails in any other way, or answers what is no answer of the part.
        """
        opened = self._enter()
        try:
            return self._deadline.run(partial(opened.executable.run, inputs))
        except TimeoutError:
            self._leave(opened)
            limit_s = self._deadline.timeout_s
            where = f"device {self.name!r}, part {self._part.name!r}"
            raise DeviceLostError(f"{where}: it did not answer within {limit_s:g} s") from None
        except DeviceLostError:
            self._leave(opened)
            raise
        finally:
            self._exit(opened)

    def call_cost(self) -> CallCost:
        """Measure what a call of the device costs beyond the part.

        Raises:
            DeviceLostError: if the device does not answer.
        """
        opened = self._enter()
        try:
            return measure_call(opened.device)
        finally:
            self._exit(opened)

    def note(self, inputs: Mapping[str, np.ndarray], latency_s: float) -> str | None:
        """Take in what a call took, and return how slow the device has become if it is too slow."""
        return self._slowness.note(inputs, latency_s)

    def leave(self) -> None:
        """Free the device as soon as the calls on it are done; a later call opens it again."""
        with self._lock:
            opened = self._current
        if opened is not None:
            self._leave(opened)

    def close(self) -> None:
        """Free the device for good and at once; calling it again does nothing."""
        with self._lock:
            self._is_closed = True
            opened, self._current = self._current, None
        if opened is not None:
            opened.free()

    def _enter(self) -> _Opened:
        with self._lock:
            if self._is_closed:
                raise SinianError(f"device {self.name!r}: its session is closed; open the bundle again")
            if self._current is None:
                self._current = self._opened()
                self._slowness.forget()
            self._current.calls += 1
            return self._current

    def _opened(self) -> _Opened:
        return _Opened(*open_part(self._spec, self._part, artifacts=self._artifacts))

    def _exit(self, opened: _Opened) -> None:
        with self._lock:
            opened.calls -= 1
            is_last = opened.is_left and opened.calls == 0
        if is_last:
            opened.free()

    def _leave(self, left: _Opened) -> None:
        """Use ``left`` no more. Another call may have opened the device anew meanwhile: that stays."""
        with self._lock:
            if self._current is left:
                self._current = None
            is_idle = left.calls == 0 and not left.is_left
            left.is_left = True
        if is_idle:
            left.free()
