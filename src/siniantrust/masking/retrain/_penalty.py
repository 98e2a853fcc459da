"""What a training may be made to avoid beside wrong answers: features from which the input can be told, say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch


class Penalty(Protocol):
    """A term that is added to the loss of every step and of the validation; already weighted."""

    def __call__(self, inputs: torch.Tensor, features: torch.Tensor, labels: torch.Tensor | None, /) -> torch.Tensor:
        """Return a scalar that depends on ``features`` differentiably.

        Args:
            inputs: The private input, (N, *item shape).
            features: What crosses the cut, (N, *shape); several tensors come flattened and joined, (N, elements).
            labels: The classes (N,), if the data have any.
        """


@runtime_checkable
class TrainedPenalty(Penalty, Protocol):
    """A penalty that learns itself, as an adversary does: it takes a step of its own before each step of the model.

    Its state goes into checkpoints, so that an interrupted training goes on exactly.
    """

    def inner_step(self, inputs: torch.Tensor, features: torch.Tensor, labels: torch.Tensor | None, /) -> None:
        """Learn from one batch; ``features`` carry no gradient."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return all that has been learnt, optimisers included, as tensors, numbers, lists and dictionaries."""

    def load_state_dict(self, state: Mapping[str, Any], /) -> object:
        """Take over what ``state_dict`` returned."""
