"""One untrusted part on one device: opened when first needed, freed when it was left and the last call is done."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from siniantrust.errors import DataError, DeviceError, DeviceLostError, SinianError
from siniantrust.graph import Part
from siniantrust.odla import Device, DeviceInfo, DeviceSpec, Executable, open_device
from siniantrust.runtime._answers import check_answer
from siniantrust.runtime._deadline import Deadline
from siniantrust.runtime._slowness import Slowness


@dataclass(eq=False)
class _Opened:
    """An open device with the part on it, and how many calls use it."""

    device: Device
    executable: Executable
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

    def __init__(self, part: Part, spec: DeviceSpec, *, deadline: Deadline, slow_factor: float | None) -> None:
        self.name = spec.name
        self.reserved = 0
        self._part = part
        self._spec = spec
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
            outputs = self._deadline.run(partial(opened.executable.run, inputs))
            check_answer(self._part, inputs, outputs)
        except DataError:
            raise
        except Exception as fault:
            named = self._named(fault)
            if isinstance(named, DeviceLostError):
                self._leave(opened)
            raise named from fault
        else:
            return outputs
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
        try:
            device = open_device(self._spec)
            try:
                return _Opened(device, device.compile(self._part))
            except BaseException:
                device.close()
                raise
        except SinianError as fault:
            raise (self._named(fault) if isinstance(fault, DeviceError) else fault) from None
        except Exception as fault:  # a backend may fail in any way
            raise self._named(fault) from fault

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

    def _named(self, fault: Exception) -> DeviceError:
        """Return the fault as an error with the plan's name for the device; a backend knows its address at most."""
        name = f"device {self.name!r}"
        if isinstance(fault, DeviceError):
            return fault if str(fault).startswith(name) else type(fault)(f"{name}: {fault}")
        if isinstance(fault, TimeoutError) and self._deadline.timeout_s is not None:
            return DeviceLostError(f"{name}: it did not answer within {self._deadline.timeout_s:g} s")
        what = " ".join(f"{type(fault).__name__}: {fault}".split())
        # Connections that drop and processes that vanish are errors of the operating system.
        return (DeviceLostError if isinstance(fault, OSError) else DeviceError)(f"{name}: {what}")
