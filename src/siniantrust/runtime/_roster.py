"""Which devices a part runs on now, which may take over, and which one the next request goes to."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from siniantrust.errors import SinianError
from siniantrust.runtime._observe import Move, Observer
from siniantrust.runtime._seat import Seat


class Roster:
    """The devices of one part.

    Args:
        part: its name.
        seats: every device that may run it, by name.
        serving: the devices that run it.
        spares: devices that may take over by themselves, the first choice first; serving ones count when they left.
        observer: told of moves.
    """

    def __init__(
        self, part: str, seats: Mapping[str, Seat], *, serving: Iterable[str], spares: Sequence[str], observer: Observer
    ) -> None:
        self._part = part
        self._seats = seats
        self._serving = list(serving)
        self._spares = list(dict.fromkeys(spares))
        self._observer = observer
        self._lock = threading.Lock()
        # The order in which devices were last found at fault; a device without an entry is trusted to work.
        self._faults: dict[str, int] = {}
        self._clock = itertools.count(1)
        self._is_closed = False

    @property
    def serving(self) -> tuple[str, ...]:
        """Return the devices that run the part."""
        with self._lock:
            return tuple(self._serving)

    def seat(self, name: str) -> Seat:
        """Return the part's seat on a device that may run it."""
        return self._seats[name]

    def spares(self) -> list[str]:
        """Return the devices that may take over now, those at fault last, the latest fault at the very end."""
        with self._lock:
            found = [name for name in self._spares if name not in self._serving]
            return sorted(found, key=lambda name: self._faults.get(name, 0))

    def reserve(self, *, tried: Sequence[str]) -> Seat | None:
        """Choose the device for a request: of those that serve the least loaded, else a spare one, else one at fault.

        Args:
            tried: the devices that failed the request, the latest one last. That one does not get it again right away;
                the others only when no device is left that it was not tried on.

        Returns:
            Its seat, to be given back by ``release``; None if there is no other device.
        """
        with self._lock:
            if self._is_closed:
                raise SinianError(f"part {self._part!r}: its session is closed; open the bundle again")
            names = [name for name in dict.fromkeys((*self._serving, *self._spares)) if name not in tried[-1:]]
            if not names:
                return None
            chosen = self._seats[min(names, key=lambda name: (self._latest(name, tried), *self._cost(name)))]
            chosen.reserved += 1
            return chosen

    def release(self, seat: Seat) -> None:
        """Note that a request is done with its device."""
        with self._lock:
            seat.reserved -= 1

    def distrust(self, name: str) -> None:
        """Note that a device failed or was slow."""
        with self._lock:
            self._faults[name] = next(self._clock)

    def trust(self, name: str) -> None:
        """Note that a device answered."""
        with self._lock:
            self._faults.pop(name, None)

    def replace(
        self, left: Iterable[str], target: str, *, cause: Literal["command", "slow", "failure"], reason: str
    ) -> None:
        """Let ``target`` serve in place of those of ``left`` that do; they are freed when their last call is done."""
        with self._lock:
            gone = [name for name in left if name in self._serving]
            if not gone or self._is_closed:
                return
            if target not in self._serving:
                self._serving[self._serving.index(gone[0])] = target
            self._serving = [name for name in self._serving if name not in gone]
            if cause == "command":
                self._faults.pop(target, None)
        for name in gone:
            self._seats[name].leave()
            self._observer.on_move(Move(self._part, name, target, cause, reason, time.perf_counter()))

    def add(self, name: str, *, reason: str) -> None:
        """Let one more device serve."""
        with self._lock:
            if self._is_closed or name in self._serving:
                return
            self._serving.append(name)
            self._faults.pop(name, None)
        self._observer.on_move(Move(self._part, None, name, "return", reason, time.perf_counter()))

    def close(self) -> None:
        """Free every device for good."""
        with self._lock:
            self._is_closed = True
        faults = []
        for seat in self._seats.values():
            try:
                seat.close()
            except Exception as fault:  # noqa: BLE001 - the others are to be freed all the same
                faults.append(fault)
        if faults:
            raise faults[0]

    @staticmethod
    def _latest(name: str, tried: Sequence[str]) -> int:
        """Return which trial of ``name`` was the latest, 0 if there was none."""
        return max((number for number, each in enumerate(tried, start=1) if each == name), default=0)

    def _cost(self, name: str) -> tuple[int, bool, int]:
        serves = name in self._serving
        return self._faults.get(name, 0), not serves, self._seats[name].reserved if serves else 0
