"""The requests of a session that are on their way: each is begun once, ended once, and counted where it waits."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from dataclasses import dataclass

from siniantrust.runtime._observe import Observer


@dataclass(eq=False, slots=True)
class Request:
    """One request on its way. It waits for the part ``waits_for`` since ``ready_s``, or is in a part (None)."""

    number: int
    start_s: float
    ready_s: float
    waits_for: str | None = None
    is_ended: bool = False


class Requests:
    """Gives numbers to requests, and tells an observer of each begin and end and of the queues."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._waiting: Counter[str] = Counter()

    def begin(self) -> Request:
        """Take in a request."""
        now = time.perf_counter()
        request = Request(next(self._numbers), now, now)
        self._observer.on_begin(request.number, now)
        return request

    def wait(self, request: Request, part: str) -> None:
        """Note that a request's values are ready for ``part``."""
        request.ready_s = time.perf_counter()
        self._change(request, part)

    def enter(self, request: Request) -> None:
        """Note that the part that a request waited for takes it."""
        self._change(request, None)

    def end(self, request: Request, error: str | None) -> None:
        """Note that a request was answered or failed; for one that had ended, nothing happens."""
        with self._lock:
            if request.is_ended:
                return
            request.is_ended = True
        self._change(request, None)
        self._observer.on_end(request.number, request.start_s, time.perf_counter(), error)

    def _change(self, request: Request, part: str | None) -> None:
        with self._lock:
            before, request.waits_for = request.waits_for, part
            for name, change in ((before, -1), (part, 1)):
                if name is not None:
                    self._waiting[name] += change
                    # Within the lock, so that lengths are told in the order in which they were.
                    self._observer.on_queue(name, self._waiting[name])
