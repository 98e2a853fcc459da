"""What a search leaves to read: every trial, and which of them nothing beats."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from siniantrust._files import write_atomic

FORMAT = "siniantrust.tuning/1"


@dataclass(frozen=True, slots=True)
class Point:
    """One trial that was carried through.

    Attributes:
        number: its number; ``trials/NUMBER.onnx`` is its model.
        model_sha256: of its model, as plans and audits of it have it.
        cut: the tensor of the given model at which it was cut.
        tensor: what crosses in its model.
        mask: the masks as the search has them; ``none`` for no mask.
        strength: of those that name none, in their own unit; 0 where there are none.
        kept_channels: share of Part 1's channels that were kept.
        crossing_channels: share of the channels that cross that were kept.
        penalty: what was added to the loss; ``none`` for nothing.
        leakage: upper bound of the best attack by metric.
        beyond_class: the same attacks' upper bounds corrected for an attacker who sees the predicted class alone.
        class_alone: upper bounds of that attacker.
        converged: whether no attack still gained by a larger budget.
        best_attack: the best attack by metric.
        accuracy: share of right labels among held-out items.
        lost_points: what that is below the given model's, in points.
        flops: of Part 1, for one item.
        size_bytes: that cross, for one item.
        on_front: whether no other point is at least as good in all four and better in one.
        within: whether it keeps to the limits.
    """

    number: int
    model_sha256: str
    cut: str
    tensor: str
    mask: str
    strength: float
    kept_channels: float
    crossing_channels: float
    penalty: str
    leakage: dict[str, float]
    beyond_class: dict[str, float]
    class_alone: dict[str, float]
    converged: bool
    best_attack: dict[str, str]
    accuracy: float
    lost_points: float
    flops: int
    size_bytes: int
    on_front: bool
    within: bool


@dataclass(frozen=True, slots=True)
class Tuning:
    """A search as a record, ``tune.json``.

    ``points`` are sorted by their highest leakage. Trials that failed, and those that were given up for their accuracy,
    have their reasons by number.
    """

    model_sha256: str
    accuracy_original: float
    limits: dict[str, float]
    points: tuple[Point, ...]
    failed: dict[int, str]
    given_up: dict[int, str]

    def described(self) -> dict[str, Any]:
        """Return the record as JSON holds it."""
        return {"format": FORMAT, **asdict(self)}


def write_tuning(tuning: Tuning, path: Path) -> None:
    """Write ``tuning`` as JSON.

    Raises:
        OSError: if it cannot be written.
    """
    write_atomic(path, (json.dumps(tuning.described(), indent=1, allow_nan=False) + "\n").encode())
