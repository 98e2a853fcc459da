"""Pooling of quantised values: the largest step is the step of the largest value, in a quarter of the bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from siniantrust.errors import PlanError


@dataclass(frozen=True, slots=True)
class Pool:
    """The largest of each window: per axis, for two axes (height, width); pads as (top, left, bottom, right)."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]

    def check(self, value: str) -> None:
        """Prove that every window meets the image, so that the largest of it is a step of a value.

        Raises:
            PlanError: naming ``value``, which it makes, and what was found.
        """
        inside = all(0 <= pad < size for pad, size in zip(self.pads, self.kernel * 2, strict=True))
        if not inside or min(self.strides) < 1:
            raise PlanError(
                f"value '{value}': expected windows that move on and hang over an edge by less than their size, found "
                f"kernel {self.kernel}, strides {self.strides}, pads {self.pads}"
            )

    def size(self, image: Sequence[int]) -> tuple[int, int]:
        """Return how many windows an image of this height and width has, down and across."""
        padded = [size + self.pads[axis] + self.pads[axis + 2] for axis, size in enumerate(image)]
        high, wide = ((padded[axis] - self.kernel[axis]) // self.strides[axis] + 1 for axis in (0, 1))
        return high, wide
