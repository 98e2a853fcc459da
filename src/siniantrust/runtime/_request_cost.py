"""What a session itself takes of a request: checks, numbers, queues and observers, beside the parts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import numpy as np

from siniantrust.graph import Tensor
from siniantrust.runtime._interface import Interface
from siniantrust.runtime._observe import MoveLog, Observers
from siniantrust.runtime._requests import Requests
from siniantrust.runtime._run_through import run_through
from siniantrust.runtime._stages import Answer, Stopwatch

_REPEATS = 50
_SHAPE = (1, 1024)


class _Idle:
    """A stage that hands on what it gets."""

    inputs: tuple[str, ...] = ("x",)
    width = 1
    where = "nowhere"

    def __init__(self, name: str, observer: Observers) -> None:
        self.name = name
        self._observer = observer

    def run(
        self, inputs: Mapping[str, np.ndarray], *, request: int | None = None, ready_s: float | None = None
    ) -> Answer:
        return Stopwatch(self._observer, self.name, self.where, inputs, request, ready_s).answered(dict(inputs))


def measure_request() -> float:
    """Return the median seconds of a request through two stages that do nothing."""
    observer = Observers([MoveLog()])
    tensor = Tensor("x", "float32", _SHAPE, 0)
    interface = Interface((tensor,), (tensor,), free_batch=True)
    stages, requests = (_Idle("part1", observer), _Idle("part2", observer)), Requests(observer)
    inputs = {"x": np.zeros(_SHAPE, np.float32)}
    taken = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run_through(inputs, interface, stages, requests)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)
