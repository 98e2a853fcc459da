"""The talk's rule: divide the model where the similarity to the input has reached its minimum and stays there."""

from __future__ import annotations

from collections.abc import Sequence

TOLERANCE = 0.1
MIN_LENGTH = 2


def plateau(similarities: Sequence[float], *, tolerance: float = TOLERANCE) -> int | None:
    """Return the earliest index from which the curve stays within ``tolerance`` of its minimum, or None.

    ``tolerance`` is a share of the curve's whole range. A plateau has at least two points: a curve that only touches
    its minimum at the last cut has not been seen to be flat. A curve that never falls has no plateau either.
    """
    low, high = min(similarities, default=0.0), max(similarities, default=0.0)
    if high == low:
        return None
    start = len(similarities)
    while start > 0 and similarities[start - 1] <= low + tolerance * (high - low):
        start -= 1
    return start if len(similarities) - start >= MIN_LENGTH else None
