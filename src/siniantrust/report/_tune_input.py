"""What the report reads of tune.json."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from siniantrust.report._inputs import Bytes, Record
from siniantrust.report._training_input import Count, Share

REIDENTIFICATION = "reidentification"
# A limit of zero would make every multiple infinite; below this it counts as this.
_SMALLEST_LIMIT = 1e-3


class LimitsRead(Record):
    """What a point was to keep to; ``leakage`` is that of every metric but re-identification."""

    leakage: Annotated[float, Field(ge=0)]
    reidentification: Annotated[float, Field(ge=0)]
    lost_points: float

    def of(self, metric: str) -> float:
        """Return the limit of a metric's leakage."""
        return self.reidentification if metric == REIDENTIFICATION else self.leakage


class PointRead(Record):
    """One trial. ``leakage`` are upper bounds of the best attack by metric."""

    number: Count
    model_sha256: str
    cut: str
    tensor: str
    mask: str
    strength: float
    kept_channels: Share
    crossing_channels: Share
    penalty: str
    leakage: Annotated[dict[str, float], Field(min_length=1)]
    converged: bool
    accuracy: Share
    lost_points: float
    flops: Count
    size_bytes: Bytes
    on_front: bool
    within: bool

    def excess(self, limits: LimitsRead) -> float:
        """Return the worst figure as a multiple of its limit; at most 1 keeps to all."""
        pairs = [(value, limits.of(metric)) for metric, value in self.leakage.items()]
        return max(
            value / max(limit, _SMALLEST_LIMIT) for value, limit in (*pairs, (self.lost_points, limits.lost_points))
        )


class TuningRead(Record):
    """A search."""

    format: Literal["siniantrust.tuning/1"]
    model_sha256: str
    accuracy_original: Share
    limits: LimitsRead
    points: Annotated[tuple[PointRead, ...], Field(min_length=1)]
    failed: dict[int, str]
    given_up: dict[int, str]
