"""What a session tells those who watch it: requests, calls, queues and moves; never the values of tensors."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

_log = logging.getLogger(__name__)
_MOVES = 1000


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a part on a device. Seconds are on the clock of ``time.perf_counter``.

    The part's inputs were there at ``ready_s``; what lies between it and ``start_s`` is waiting. From ``start_s`` to
    ``end_s`` the device had it, the way there and back included. ``error`` is the kind of error, None if it answered.
    ``request`` is None for a call outside any request.
    """

    request: int | None
    part: str
    device: str
    ready_s: float
    start_s: float
    end_s: float
    sent_bytes: int
    received_bytes: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """A part left ``source`` for ``target``. ``source`` is None where a replica was taken in (again)."""

    part: str
    source: str | None
    target: str
    cause: Literal["command", "slow", "failure", "return"]
    reason: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Stock:
    """The pads of a masked part after one more item was prepared in idle time.

    ``level`` items are in stock; ``prepared`` were prepared so far, which took the enclave ``prepare_s`` of its
    processor time, and the last of them ``took_s`` of the clock. ``ran_dry`` items found no pads, and ``refused``
    answers of devices did not pass their check.
    """

    part: str
    level: int
    prepared: int
    prepare_s: float
    took_s: float
    ran_dry: int
    refused: int


class Observer:
    """Watches a session. Methods are called in the session's threads, so they have to be quick and thread-safe."""

    def on_begin(self, request: int, start_s: float) -> None:
        """Take note of a request that arrived."""

    def on_end(self, request: int, start_s: float, end_s: float, error: str | None) -> None:
        """Take note of a request that was answered, or ended with an error of the kind ``error``."""

    def on_call(self, call: Call) -> None:
        """Take note of a call that ended."""

    def on_queue(self, part: str, waiting: int) -> None:
        """Take note of how many requests wait for a part now."""

    def on_move(self, move: Move) -> None:
        """Take note of a part that moved."""

    def on_stock(self, stock: Stock) -> None:
        """Take note of pads that were prepared."""


class Observers(Observer):
    """Several observers as one. One that raises is reported in the log, and no request suffers from it."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def on_begin(self, request: int, start_s: float) -> None:
        """Tell all."""
        self._tell(lambda each: each.on_begin(request, start_s))

    def on_end(self, request: int, start_s: float, end_s: float, error: str | None) -> None:
        """Tell all."""
        self._tell(lambda each: each.on_end(request, start_s, end_s, error))

    def on_call(self, call: Call) -> None:
        """Tell all."""
        self._tell(lambda each: each.on_call(call))

    def on_queue(self, part: str, waiting: int) -> None:
        """Tell all."""
        self._tell(lambda each: each.on_queue(part, waiting))

    def on_move(self, move: Move) -> None:
        """Tell all."""
        self._tell(lambda each: each.on_move(move))

    def on_stock(self, stock: Stock) -> None:
        """Tell all."""
        self._tell(lambda each: each.on_stock(stock))

    def _tell(self, tell: Callable[[Observer], None]) -> None:
        for each in self._observers:
            try:
                tell(each)
            except Exception:  # noqa: BLE001 - an observer may fail in any way
                _log.exception("observer %s failed; requests go on", type(each).__name__)


class MoveLog(Observer):
    """Remembers the latest moves."""

    def __init__(self) -> None:
        self.latest: deque[Move] = deque(maxlen=_MOVES)

    def on_move(self, move: Move) -> None:
        """Remember a move."""
        self.latest.append(move)
