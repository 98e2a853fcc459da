"""How a model is re-trained: what may change, how fast, for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from siniantrust.errors import SinianError

Mode = Literal["part2", "joint"]
"""What is trained: Part 2 alone, on what Part 1 and the mask make; or both parts."""

_WARM_UP = 0.05


class RetrainError(SinianError):
    """A model cannot be re-trained as asked, a training went astray, or its checkpoint cannot be used."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train.

    Attributes:
        mode: which parts change.
        epochs: passes over the training items, at most.
        batch_items: items of one step.
        learning_rate: highest step size of AdamW (Loshchilov, Hutter 2019); it rises over the first 5 % of all steps
            and falls to zero along a cosine.
        weight_decay: of AdamW.
        patience: epochs without a better validation loss after which training ends.
        temperature: at which answers are compared in distillation (Hinton, Vinyals, Dean 2015).
        seed: of everything random: order of batches, noise, dropout, which items are held out.
    """

    mode: Mode = "part2"
    epochs: int = 20
    batch_items: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    patience: int = 5
    temperature: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the figures.

        Raises:
            RetrainError: if one of them is out of range.
        """
        if self.mode not in ("part2", "joint"):
            raise RetrainError(f"mode {self.mode!r} is unknown; there are part2 and joint")
        for name in ("epochs", "batch_items", "patience"):
            if getattr(self, name) < 1:
                raise RetrainError(f"{name}: expected at least 1, found {getattr(self, name)}")
        for name in ("learning_rate", "temperature"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise RetrainError(f"{name}: expected a finite number above 0, found {value}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise RetrainError(f"weight_decay: expected a finite number of at least 0, found {self.weight_decay}")

    def rate(self, done: float) -> float:
        """Return the step size after the share ``done`` of all steps."""
        if done < _WARM_UP:
            return self.learning_rate * done / _WARM_UP
        return self.learning_rate * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP))) / 2
