"""The devices that compute exchanges under pads: one that answers wrongly, late or not at all gets no more."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

import numpy as np

from siniantrust.errors import IntegrityError
from siniantrust.graph import Part
from siniantrust.odla import DeviceInfo, DeviceSpec
from siniantrust.runtime._deadline import Deadline
from siniantrust.runtime._observe import Move, Observer
from siniantrust.runtime._seat import Seat


class PaddedDevices:
    """Every exchange on every device of the plan, opened when first needed.

    Args:
        part: the masked part's name.
        exchanges: what devices compute of it.
        specs: the devices, the first choice first.
        home: who computes where no device is left; None where that is not allowed.
        timeout_s: a call that takes longer is given up.
        observer: told when a device is left for the next one.
    """

    def __init__(
        self,
        part: str,
        exchanges: Sequence[Part],
        specs: Sequence[DeviceSpec],
        *,
        home: str | None,
        timeout_s: float | None,
        observer: Observer,
    ) -> None:
        self._part = part
        self._home = home
        self._observer = observer
        self._deadline = Deadline(timeout_s)
        self._seats = {
            spec.name: [Seat(each, spec, deadline=self._deadline, slow_factor=None) for each in exchanges]
            for spec in specs
        }
        self._lock = threading.Lock()
        self.quarantined: dict[str, str] = {}

    def first(self) -> str | None:
        """Return the device that gets the next exchange; None where all are quarantined."""
        with self._lock:
            return next((name for name in self._seats if name not in self.quarantined), None)

    def open(self) -> tuple[DeviceInfo, ...]:
        """Open every exchange on the first device and describe it."""
        name = self.first()
        if name is None:
            return ()
        for seat in self._seats[name]:
            seat.open()
        return (self._seats[name][0].info(),)

    def run(self, device: str, exchange: int, masked: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute an exchange.

        Raises:
            DeviceError: if the device fails, answers late or in another form, or was lost.
        """
        return self._seats[device][exchange].run(masked)

    def quarantine(self, device: str, reason: str) -> None:
        """Use a device no more."""
        with self._lock:
            if device in self.quarantined:
                return
            self.quarantined[device] = reason
            left = [name for name in self._seats if name not in self.quarantined]
        target = left[0] if left else self._home
        if target is not None:
            move = Move(self._part, device, target, "failure", reason, time.perf_counter())
            self._observer.on_move(move)

    def none_left(self, exchange: int) -> IntegrityError:
        """Return the error of a request that no device answered."""
        reasons = "; ".join(f"{name}: {why}" for name, why in self.quarantined.items())
        return IntegrityError(
            f"part {self._part!r}: no device is left for exchange {exchange} under pads ({reasons}), and the policy "
            "does not let the enclave compute it (masking.when_no_device)"
        )

    def close(self) -> None:
        """Free the devices; calling it again does nothing."""
        for seats in self._seats.values():
            for seat in seats:
                seat.close()
        self._deadline.close()
