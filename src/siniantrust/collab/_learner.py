"""Part 2 of split learning in one process: a pass forward, and one back from which it learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from siniantrust.collab._trained_part import TrainedPart


class Learner:
    """Does the passes of Part 2. One that goes forward again without having gone back forgets the first pass.

    Args:
        part: Part 2.
    """

    def __init__(self, part: TrainedPart) -> None:
        self._part = part
        self._features = self._answers = torch.empty(0)

    def forward(self, features: torch.Tensor, step: int) -> torch.Tensor:
        """Return the part's output for a step of training, without its graph."""
        self._features = features.requires_grad_()
        self._answers = self._part.forward(features, step)
        return self._answers.detach()

    def backward(self, gradient: torch.Tensor, step: int, steps: int) -> torch.Tensor:
        """Learn from the gradient by the output, and return the one by what was given."""
        self._answers.backward(gradient)  # type: ignore[no-untyped-call]
        self._part.update(step, steps)
        found = self._features.grad
        return torch.zeros_like(self._features) if found is None else found

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the part's state of a checkpoint."""
        self._part.restore(state)

    def watch(self) -> None:
        """Look after other processes, where there are any."""
