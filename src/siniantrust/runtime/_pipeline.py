"""A pipeline of stages: while one item is in a stage, the item before it is already in the next one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Value = TypeVar("Value")

# Items that may wait before a stage, so that a short stall in one does not idle the next.
_WAITING = 1


def run_pipeline(
    items: Iterable[Value],
    steps: Sequence[Callable[[Value], Value]],
    *,
    on_span: Callable[[int, int, float, float], None],
) -> Iterator[Value]:
    """Pass every item through all steps and yield the results in order.

    Each step has one thread and takes the items in order. At most ``2 * len(steps)`` items are on their way, so memory
    stays bounded. The first error ends the pipeline and is raised when its item's turn comes.

    Args:
        items: what to process; read lazily.
        steps: the stages, in order.
        on_span: called with item, step, start and end (``time.perf_counter`` seconds) of every stay in a step.
    """
    threads = [ThreadPoolExecutor(1, thread_name_prefix=f"siniantrust-stage{number}") for number in range(len(steps))]

    def stay(number: int, step: int, before: Future[Value] | Value) -> Value:
        value = before.result() if isinstance(before, Future) else before
        start_s = time.perf_counter()
        result = steps[step](value)
        on_span(number, step, start_s, time.perf_counter())
        return result

    def enter(number: int, item: Value) -> Future[Value]:
        future = threads[0].submit(stay, number, 0, item)
        for step in range(1, len(steps)):
            future = threads[step].submit(stay, number, step, future)
        return future

    on_the_way: deque[Future[Value]] = deque()
    try:
        for number, item in enumerate(items):
            on_the_way.append(enter(number, item))
            if len(on_the_way) >= len(steps) * (1 + _WAITING):
                yield on_the_way.popleft().result()
        while on_the_way:
            yield on_the_way.popleft().result()
    finally:
        for thread in threads:
            thread.shutdown(wait=True, cancel_futures=True)
