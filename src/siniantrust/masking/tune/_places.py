"""Where trials run: in processes here, or as tasks on a Ray cluster. Both return what was found, and keep nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from siniantrust._extras import require
from siniantrust.errors import SinianError
from siniantrust.graph import Model
from siniantrust.leakage import Data
from siniantrust.masking.tune._search import Choice, Search
from siniantrust.masking.tune._trial import Found, GivenUpError, attempt
from siniantrust.odla import join_ray_cluster


@dataclass(frozen=True, slots=True)
class Dropped:
    """A trial that found nothing, and why: it was given up for its accuracy, or it failed."""

    reason: str
    given_up: bool


@dataclass(frozen=True, slots=True)
class Task:
    """What all trials of a search have in common. ``original`` is the given model's accuracy."""

    model: Model
    data: Data
    search: Search
    original: float

    def run(self, choice: Choice) -> Found | Dropped:
        """Run one trial on one thread."""
        torch = require("torch", extra="leakage")
        torch.set_num_threads(1)
        with TemporaryDirectory(prefix="sinian-tune-") as folder:
            try:
                return attempt(self.model, self.data, self.search, choice, original=self.original, folder=Path(folder))
            except GivenUpError as reason:
                return Dropped(str(reason), given_up=True)
            except SinianError as fault:
                return Dropped(str(fault), given_up=False)


@dataclass(frozen=True, slots=True)
class Place:
    """Where trials run: ``submit`` starts one, and its future raises one of ``lost`` if what ran it is gone."""

    submit: Callable[[Choice], Future[Found | Dropped]]
    lost: type[Exception]


_task: Task | None = None


@contextmanager
def processes(task: Task, workers: int) -> Iterator[Place]:
    """Yield ``workers`` processes here."""
    with ProcessPoolExecutor(workers, get_context("spawn"), _prepare, (task,)) as pool:
        yield Place(lambda choice: pool.submit(_run, choice), BrokenProcessPool)


@contextmanager
def cluster(task: Task, address: str) -> Iterator[Place]:
    """Yield a Ray cluster, whose nodes have this package; a trial is a task of one core.

    Raises:
        DeviceError: if there is no cluster at ``address``.
        MissingExtraError: if Ray is not installed.
    """
    join_ray_cluster(address, device="search")
    ray = require("ray", extra="ray")
    shared = ray.put(task)
    # A worker that dies takes its trial with it: started again by itself, it might take the next one too.
    remote = ray.remote(num_cpus=1, max_retries=0)(Task.run)
    yield Place(lambda choice: remote.remote(shared, choice).future(), ray.exceptions.RayError)


def _prepare(task: Task) -> None:
    global _task  # noqa: PLW0603 - a worker's process holds one search
    _task = task


def _run(choice: Choice) -> Found | Dropped:
    if _task is None:
        raise RuntimeError("a worker of the search was not prepared")
    return _task.run(choice)
