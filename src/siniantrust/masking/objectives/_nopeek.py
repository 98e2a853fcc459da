"""NoPeek: features whose distances say little of the distances of the inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from siniantrust.errors import DataError

if TYPE_CHECKING:
    import torch

# Keeps the root of a distance of 0 differentiable.
_LEAST = 1e-9
_FEWEST = 2


@dataclass(frozen=True, slots=True)
class NoPeek:
    """``weight`` times the distance correlation (Szekely, Rizzo and Bakirov 2007) of inputs and features, 0 to 1.

    A screen, made into an objective: features with little distance correlation have given their inputs away to strong
    attackers, so that what it hides is known when attacks have been trained against it.

    Source: Vepakomma, Singh, Gupta and Raskar, NoPeek: Information leakage reduction to share activations in
    distributed deep learning, ICDM Workshops 2020.
    """

    weight: float = 1.0

    def __call__(self, inputs: torch.Tensor, features: torch.Tensor, _labels: torch.Tensor | None, /) -> torch.Tensor:
        """Return the penalty of a batch of at least two items."""
        if len(inputs) < _FEWEST:
            raise DataError(f"nopeek: a batch of {len(inputs)} items has no distances; take more items a batch")
        return self.weight * distance_correlation(inputs.flatten(1), features.flatten(1))


def distance_correlation(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the sample distance correlation of two sets of rows, (items, numbers) each."""
    one, two = (_centred(rows.float()) for rows in (first, second))
    scale = ((one * one).mean() * (two * two).mean()).sqrt().clamp_min(_LEAST)
    return ((one * two).mean().clamp_min(_LEAST) / scale).sqrt()


def _centred(rows: torch.Tensor) -> torch.Tensor:
    """Return the distances of all pairs, with the means of rows and columns taken off."""
    squares = rows.square().sum(1)
    distances = (squares[:, None] + squares[None, :] - 2 * rows @ rows.T).clamp_min(0).add(_LEAST).sqrt()
    return distances - distances.mean(0) - distances.mean(1, keepdim=True) + distances.mean()
