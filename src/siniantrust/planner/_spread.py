"""A placement that the solver found: the untrusted stages between a first and a last cut."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """One untrusted part: the boundaries it lies between, and its devices, the slowest first.

    ``latency_s`` is that of the slowest, ``period_s`` the time between answers of all together.
    """

    start: int
    end: int
    devices: tuple[str, ...]
    latency_s: float
    period_s: float


@dataclass(frozen=True)
class Spread:
    """Stages in order, and what a request costs, trusted parts included."""

    stages: tuple[Stage, ...]
    latency_s: float
    period_s: float

    @property
    def start(self) -> int:
        """The first boundary."""
        return self.stages[0].start

    @property
    def end(self) -> int:
        """The last boundary; the whole model where nothing returns to the enclave."""
        return self.stages[-1].end

    @property
    def boundaries(self) -> tuple[int, ...]:
        """All boundaries, from the first on."""
        return (self.start, *(stage.end for stage in self.stages))

    @property
    def shared(self) -> bool:
        """Whether more than one device takes part."""
        return sum(len(stage.devices) for stage in self.stages) > 1
