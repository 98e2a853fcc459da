"""Calls that may be given up: each runs in a thread of its own, which is left behind if it does not return."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")
_Job = tuple[Callable[[], Any], "Future[Any]"]


class Deadline:
    """Runs functions that have to return within ``timeout_s``; without one, it runs them where it is called."""

    def __init__(self, timeout_s: float | None) -> None:
        self.timeout_s = timeout_s
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[_Job | None]] = []
        self._is_closed = False

    def run(self, function: Callable[[], Result]) -> Result:
        """Return what ``function`` returns.

        Raises:
            TimeoutError: if it did not return in time; it may still be running.
        """
        if self.timeout_s is None:
            return function()
        done: Future[Result] = Future()
        self._worker().put((function, done))
        result: Result = done.result(self.timeout_s)
        return result

    def close(self) -> None:
        """End the threads that wait for work; one that never returned cannot be ended, and dies with the process."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.put(None)

    def _worker(self) -> SimpleQueue[_Job | None]:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        jobs: SimpleQueue[_Job | None] = SimpleQueue()
        # No pool of the standard library: the interpreter would wait at its end for a thread that never returns.
        threading.Thread(target=self._work, args=(jobs,), name="siniantrust-call", daemon=True).start()
        return jobs

    def _work(self, jobs: SimpleQueue[_Job | None]) -> None:
        while (job := jobs.get()) is not None:
            function, done = job
            try:
                result = function()
            except BaseException as fault:  # noqa: BLE001 - raised where the result is waited for
                done.set_exception(fault)
            else:
                done.set_result(result)
            del job, function, done  # a thread that waits must not keep a request's tensors
            with self._lock:
                if self._is_closed:
                    return
                self._idle.append(jobs)
