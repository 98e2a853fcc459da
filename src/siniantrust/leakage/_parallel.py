"""Several cuts at a time: they are independent, and small operations gain little from threads within one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from siniantrust._progress import Step
from siniantrust.leakage._budget import Budget

_Work = TypeVar("_Work")
_Result = TypeVar("_Result")

# Matrices of (items x attacker's items) single-precision numbers that one attack holds at a time, and room beside them.
_MATRICES = 5
_BESIDE_BYTES = 300 << 20


def workers_for(cuts: int, *, items: int, attackers: int, threads: int, budget: Budget) -> int:
    """Return how many cuts to attack at a time: as many as there are threads, and as fit into the budget's memory."""
    each = _MATRICES * items * attackers * 4 + _BESIDE_BYTES
    return max(1, min(threads, cuts, budget.memory_bytes // each))


def run_all(
    work: Callable[[int, _Work], _Result], things: Sequence[_Work], *, workers: int, threads: int
) -> list[_Result]:
    """Return ``work(index, thing)`` for each thing, in order; ``threads`` are shared out among the ``workers``.

    The first error stops what has not begun and is raised.
    """
    import torch

    within = max(1, threads // workers)
    with (
        _torch_threads(within),
        ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(within,)) as pool,
    ):
        futures = [pool.submit(work, index, thing) for index, thing in enumerate(things)]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def one_at_a_time(step: Step) -> Step:
    """Return ``step`` in a form that several threads may call."""
    lock = threading.Lock()

    def guarded(description: str, *, advance: float = 1.0) -> None:
        with lock:
            step(description, advance=advance)

    return guarded


_SEEDING = threading.Lock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torch's global random numbers start from ``seed`` for a while, for one thread at a time.

    Layers draw their first weights from them. The state is as before afterwards.
    """
    import torch

    with _SEEDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """Let torch compute with ``count`` threads for a while."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
