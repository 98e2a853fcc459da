"""Preparing pads in idle time: one item after the other, as long as nobody waits and the stock is not full."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from siniantrust.errors import SinianError
from siniantrust.masking.exact import Status

# So long nothing may have happened before the enclave counts as idle.
_QUIET_S = 0.002


class Refill:
    """A thread that prepares while no request is on its way.

    Args:
        prepare: prepares one item.
        target: items to keep in stock; with 0 nothing is prepared ahead.
        told: called after each item with what the trusted side then says, and the seconds that preparing it took.
    """

    def __init__(self, prepare: Callable[[], Status], *, target: int, told: Callable[[Status, float], None]) -> None:
        self._prepare = prepare
        self._target = target
        self._told = told
        self._change = threading.Condition()
        self._busy = 0
        self._level = 0
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="siniantrust-refill", daemon=True)
        if target:
            self._thread.start()

    @contextmanager
    def request(self, items: int) -> Iterator[None]:
        """Hold the refill back while a request of so many items is on its way."""
        with self._change:
            self._busy += 1
            self._level = max(self._level - items, 0)
        try:
            yield
        finally:
            with self._change:
                self._busy -= 1
                self._change.notify_all()

    def emptied(self) -> None:
        """Note that nothing is in stock any more: another enclave took the place of the one before."""
        with self._change:
            self._level = 0
            self._change.notify_all()

    def fill(self, timeout_s: float) -> int:
        """Wait until the stock is full, at most so long; return the items in it."""
        with self._change:
            self._change.wait_for(lambda: self._level >= self._target or self._is_closed, timeout_s)
            return self._level

    def close(self) -> None:
        """End the thread after the item that it is at."""
        with self._change:
            self._is_closed = True
            self._change.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while self._wait():
            start = time.perf_counter()
            try:
                status = self._prepare()
            except SinianError:
                # The enclave is gone or closing: the next request launches another one and says so itself.
                with self._change:
                    if not self._is_closed:
                        self._change.wait()
                continue
            with self._change:
                self._level = status.stock_level
                self._change.notify_all()
            self._told(status, time.perf_counter() - start)

    def _wait(self) -> bool:
        """Wait for quiet and room; say whether to go on."""
        with self._change:
            while not self._is_closed:
                if self._busy or self._level >= self._target:
                    self._change.wait()
                elif not self._change.wait(_QUIET_S):
                    return True
            return False
