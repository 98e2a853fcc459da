"""Several cuts at a time, in processes of their own or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, TypeVar

from siniantrust._extras import require
from siniantrust.errors import AuditError
from siniantrust.leakage._budget import Budget

_Result = TypeVar("_Result")

Cluster = Literal["processes", "ray"]
Task = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and named arguments of one call."""

# Matrices of (items x attacker's items) single-precision numbers that one attack holds at a time, and room beside them.
_MATRICES = 5
_BESIDE_BYTES = 300 << 20


def workers_for(cuts: int, *, items: int, attackers: int, threads: int, budget: Budget) -> int:
    """Return how many cuts to attack at a time: as many as there are threads, and as fit into the budget's memory."""
    each = _MATRICES * items * attackers * 4 + _BESIDE_BYTES
    return max(1, min(threads, cuts, budget.memory_bytes // each))


def run_all(
    work: Callable[..., _Result],
    arguments: Sequence[Task],
    *,
    workers: int,
    cluster: Cluster = "processes",
) -> Iterator[_Result]:
    """Yield ``work(*args, **kwargs)`` for each of ``arguments`` as they end, in any order.

    One worker computes in this process; more are processes of their own (joblib's loky), or tasks on a Ray cluster.

    Raises:
        AuditError: if a worker died.
        MissingExtraError: if Ray is asked for and not installed.
    """
    joblib = require("joblib", extra="leakage")
    if cluster == "ray":
        require("ray.util.joblib", extra="ray").register_ray()
        backend = joblib.parallel_config(backend="ray")
    else:
        backend = nullcontext()
    lost = require("joblib.externals.loky.process_executor", extra="leakage").TerminatedWorkerError
    with backend:
        # Ray's pool hands back all at once.
        order = "list" if cluster == "ray" else "generator_unordered"
        jobs = joblib.Parallel(
            n_jobs=workers if cluster == "processes" else -1, return_as=order, pre_dispatch="2*n_jobs"
        )
        try:
            yield from jobs(joblib.delayed(work)(*args, **kwargs) for args, kwargs in arguments)
        except lost:
            raise AuditError(
                "a worker of the audit died: killed, or out of memory (fewer threads or less memory_bytes need less); "
                "what was finished is kept where the audit has a cache folder, and the same command goes on from there"
            ) from None


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torch's global random numbers start from ``seed`` for a while.

    Layers draw their first weights from them. The state is as before afterwards.
    """
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def computing(threads: int) -> Iterator[None]:
    """Let torch compute with ``threads`` threads for a while, on a GPU if there is one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.device("cuda") if torch.cuda.is_available() else nullcontext():
            yield
    finally:
        torch.set_num_threads(before)
