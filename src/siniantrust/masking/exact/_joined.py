"""Entries that are put together of several values: what a device reads where it adds the results of two layers.

In integers such a sum is one layer, over the channels of one value and then those of the other, each in steps of its
own: what these are worth is in the layer's weights. An enclave reads this module too, without an ONNX library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from siniantrust.errors import PlanError

_MATRIX = 2
_IMAGES = 4


@dataclass(frozen=True, slots=True)
class Joined:
    """What a joint entry has of one value.

    Attributes:
        node: the model's node whose input it is.
        value: the value.
        shape: its shape for one item, as it crosses.
        steps: of so many rows and columns one crosses.
        scale: what one step of the quantised value is worth.
    """

    node: str
    value: str
    shape: tuple[int, ...]
    steps: tuple[int, int]
    scale: float

    def thinned(self, steps: np.ndarray) -> np.ndarray:
        """Return the part of the value's steps that crosses: a view."""
        return steps if self.steps == (1, 1) else steps[:, :, :: self.steps[0], :: self.steps[1]]


def joint_shape(parts: Sequence[Joined]) -> tuple[int, ...]:
    """Return the shape of the entry that parts make, for one item."""
    items, _, *image = parts[0].shape
    return (items, sum(part.shape[1] for part in parts), *image)


def put_together(parts: Sequence[Joined], steps: Mapping[str, np.ndarray], whole: np.ndarray) -> None:
    """Write the steps of all parts into a joint entry's, int8 (items, channels, ...), one behind the other."""
    at = 0
    for part in parts:
        whole[:, at : at + part.shape[1]] = part.thinned(steps[part.value])
        at += part.shape[1]


def check_parts(entry: str, shape: Sequence[int], parts: Sequence[Joined]) -> None:
    """Prove that parts fill a joint entry, and that their steps are worth something.

    Args:
        entry: its name.
        shape: its shape for one item, as it crosses; empty if nothing crosses by that name.
        parts: what it is put together of.

    Raises:
        PlanError: naming the entry, and what was found.
    """
    alike = all((part.shape[:1], part.shape[2:]) == (tuple(shape[:1]), tuple(shape[2:])) for part in parts)
    fill = parts and alike and len(shape) >= _MATRIX and joint_shape(parts) == tuple(shape)
    if not fill or min(part.shape[1] for part in parts) < 1:
        found = ", ".join(f"'{part.value}' {list(part.shape)}" for part in parts) or "none"
        raise PlanError(f"exact masks: joint entry '{entry}': expected parts that make {list(shape)}, found {found}")
    for part in parts:
        moves = min(part.steps) >= 1 and (part.steps == (1, 1) or len(shape) == _IMAGES)
        if not moves or not 0 < part.scale < math.inf:
            raise PlanError(
                f"exact masks: joint entry '{entry}': expected of '{part.value}' steps that move on and are worth more "
                f"than nothing, found {part.steps} worth {part.scale:.3g}"
            )
