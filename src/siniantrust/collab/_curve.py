"""The loss over the steps of split learning, of which no more points are kept than a picture shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_POINTS = 200


class Curve:
    """Points of step and loss. Checkpoints hold them, so that they survive what the weights survive.

    Args:
        steps: how many there will be.
    """

    def __init__(self, steps: int) -> None:
        self._every = max(1, steps // _POINTS)
        self.points: list[dict[str, float]] = []

    def note(self, step: int, loss: float) -> None:
        """Keep a step's loss if it is one of those that are kept."""
        if step % self._every == 0:
            self.points.append({"step": step, "loss": loss})

    def restore(self, points: Iterable[Mapping[str, float]]) -> None:
        """Go back to the points of a checkpoint."""
        self.points = [dict(point) for point in points]
