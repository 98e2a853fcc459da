"""A pipeline of stages: while one item is in a stage, the item before it is already in the next one."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Value = TypeVar("Value")

# Items that may wait before a stage, so that a short stall in one does not idle the next.
_WAITING = 1


def run_pipeline(
    items: Iterable[Value],
    steps: Sequence[Callable[[Value], Value]],
    *,
    on_span: Callable[[int, int, float, float], None],
) -> Generator[Value, None, None]:
    """Pass every item through all steps and yield the results in order.

    Each step has one thread and takes the items in order. At most ``2 * len(steps)`` items are on their way, so memory
    stays bounded. The first error, of a step or of ``items``, is raised when its item's turn comes, and no step takes a
    later item any more. The threads end with the generator, at the latest when it is closed.

    Args:
        items: what to process; read lazily, in the caller's thread.
        steps: the stages, in order.
        on_span: called with item, step, start and end (``time.perf_counter`` seconds) of every stay in a step, in the
            step's thread.
    """
    line = _Line(steps, on_span)
    on_the_way: deque[Future[Value]] = deque()
    try:
        for future in line.enter_all(items):
            on_the_way.append(future)
            if len(on_the_way) >= len(steps) * (1 + _WAITING):
                yield on_the_way.popleft().result()
        while on_the_way:
            yield on_the_way.popleft().result()
    finally:
        line.close()


class _Line(Generic[Value]):
    """One thread for each step; an item waits in a step's thread for the step before to be done with it."""

    def __init__(
        self, steps: Sequence[Callable[[Value], Value]], on_span: Callable[[int, int, float, float], None]
    ) -> None:
        self._steps = steps
        self._on_span = on_span
        self._threads = [
            ThreadPoolExecutor(1, thread_name_prefix=f"siniantrust-stage{number}") for number in range(len(steps))
        ]
        # Items from here on are dropped. Two steps that fail at the same time may both write it; whichever stays, the
        # consumer stops at the first of them.
        self._end: float = math.inf

    def enter_all(self, items: Iterable[Value]) -> Iterator[Future[Value]]:
        """Yield the last step's future of each item; an error of ``items`` itself is the last one's."""
        try:
            for number, item in enumerate(items):
                yield self._enter(number, item)
        except Exception as error:  # noqa: BLE001 - raised by its future, after the items that came before it
            failed: Future[Value] = Future()
            failed.set_exception(error)
            yield failed

    def close(self) -> None:
        """End the threads, each as soon as the item in it leaves its step."""
        self._end = -1
        for thread in self._threads:
            thread.shutdown(wait=True, cancel_futures=True)

    def _enter(self, number: int, item: Value) -> Future[Value]:
        future = self._threads[0].submit(self._stay, number, 0, item)
        for step in range(1, len(self._steps)):
            future = self._threads[step].submit(self._stay, number, step, future)
        return future

    def _stay(self, number: int, step: int, before: Future[Value] | Value) -> Value:
        value = before.result() if isinstance(before, Future) else before
        if number >= self._end:
            raise CancelledError
        start_s = time.perf_counter()
        try:
            result = self._steps[step](value)
            self._on_span(number, step, start_s, time.perf_counter())
        except BaseException:
            self._end = number
            raise
        return result
