"""A pipeline of stages: while one item is in a stage, the item before it is already in the next one."""

from __future__ import annotations

import math
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
    widths: Sequence[int] | None = None,
) -> Generator[Value, None, None]:
    """Pass every item through all steps and yield the results in order.

    Each step begins the items in order, as many at a time as it is wide. At most as many items are on their way as fit
    into the steps, and one more for each step, so memory stays bounded. The first error, of a step or of ``items``, is
    raised when its item's turn comes, and no step takes a later item any more. The threads end with the generator, at
    the latest when it is closed.

    Args:
        items: what to process; read lazily, in the caller's thread.
        steps: the stages, in order.
        widths: how many items each step works on at the same time; None for one each.
    """
    widths = widths or [1] * len(steps)
    line = _Line(steps, widths)
    room = sum(widths) + _WAITING * len(steps)
    on_the_way: deque[Future[Value]] = deque()
    try:
        for future in line.enter_all(items):
            on_the_way.append(future)
            if len(on_the_way) >= room:
                yield on_the_way.popleft().result()
        while on_the_way:
            yield on_the_way.popleft().result()
    finally:
        line.close()


class _Line(Generic[Value]):
    """Threads for each step; an item waits in a step's thread for the step before to be done with it."""

    def __init__(self, steps: Sequence[Callable[[Value], Value]], widths: Sequence[int]) -> None:
        self._steps = steps
        self._threads = [
            ThreadPoolExecutor(width, thread_name_prefix=f"siniantrust-stage{number}")
            for number, width in enumerate(widths)
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
        try:
            return self._steps[step](value)
        except BaseException:
            self._end = min(self._end, number)
            raise
