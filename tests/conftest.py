"""What tests of several rooms share: a Ray cluster, processes to kill, and how files are handed out to workers."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

# Several workers share the cores. Where each computes with as many threads as there are cores, threads that wait for
# one another in busy loops keep out those that compute: trainings of two workers took five times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Neighbours on a core make any example slow. Where CI is set, Hypothesis takes a profile of that kind by itself.
if "CI" not in os.environ:
    settings.register_profile("unhurried", deadline=None)
    settings.load_profile("unhurried")

# What takes long to make, and the files that use it: one worker runs them all and makes it once.
_RAY = "a Ray cluster"
_SHARED = {
    _RAY: ("test_collab_workers", "test_odla_ray", "test_runtime_ray"),
    "ONNX's cases": ("test_lowering_operators", "test_odla_node_table", "test_odla_wrong_nodes"),
}


def _unit(node_id: str) -> str:
    """Return what a test is handed out with: its file, or the files that share something with it."""
    file = Path(node_id.partition("::")[0])
    return next((shared for shared, files in _SHARED.items() if file.stem in files), str(file))


class _Scheduling(LoadFileScheduling):
    """As ``--dist loadfile``, but for files that share something, and in the order in which tests were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return _unit(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Hand out whole files, where that was asked for."""
    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return _Scheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let several workers begin with what is shared, then with files of few tests, which are the long ones.

    So the last file that is handed out has many short tests, and no worker waits long for the other.
    """
    if hasattr(config, "workerinput"):
        sizes = Counter(_unit(item.nodeid) for item in items)
        items.sort(key=lambda item: (_unit(item.nodeid) not in _SHARED, sizes[_unit(item.nodeid)]))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave Ray's cluster behind its tests: Ray prints what befalls nodes to whatever is standard output then."""
    ray = sys.modules.get("ray")
    if ray is not None and _unit(item.nodeid) != _RAY and ray.is_initialized():
        ray.shutdown()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """Run a cluster of a head and two nodes; this process joins it when a device on it is opened."""
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
        import ray_nodes

        with ray_nodes.ray_cluster(nodes=2) as cluster:
            yield cluster


@pytest.fixture(scope="session")
def forks() -> ForkServerContext:
    """Return a context whose processes are forks of one that has imported what tests run in them, to be killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["broker_worker", "version_worker"])
    with pytest.MonkeyPatch.context() as patch:
        # Up to Python 3.12 a fork server is not told this process's path, and leaves out what it does not find.
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()
    return context
