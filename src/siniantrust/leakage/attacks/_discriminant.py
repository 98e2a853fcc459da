"""Linear discriminants: the class whose mean is nearest, counted in the spread within classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

# How far the spread over all vectors, which whitening made 1, counts beside the spread within a class.
_SHRINKAGES = (1e-4, 1e-2, 1e-1, 1.0, 100.0)
_SCORE_NUMBERS = 1 << 25


@dataclass(frozen=True, slots=True)
class Discriminant:
    """One linear score for each class: ``filters`` (classes, numbers) and ``offsets`` (classes,)."""

    shrinkage: float
    filters: torch.Tensor = field(repr=False)
    offsets: torch.Tensor = field(repr=False)

    def classes(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the best class (N, length) for vectors (N, length, numbers)."""
        items = max(1, _SCORE_NUMBERS // (vectors.shape[1] * max(self.filters.shape)))
        return torch.cat([(part @ self.filters.T + self.offsets).argmax(dim=2) for part in torch.split(vectors, items)])


def discriminants(vectors: torch.Tensor, classes: torch.Tensor) -> Iterator[Discriminant]:
    """Yield Fisher's discriminants (1936) of vectors (M, numbers) of ``classes`` (M,), 0 and up, none left out.

    The spread within classes is shrunk to a sphere by more and more; with the most, only the distance to the means and
    the classes' shares count.
    """
    counts = classes.bincount().float()
    means = torch.zeros(len(counts), vectors.shape[1]).index_add_(0, classes, vectors) / counts[:, None]
    within = vectors - means[classes]
    spread = within.T @ within / len(within)
    for shrinkage in _SHRINKAGES:
        filters = torch.linalg.solve(spread + shrinkage * torch.eye(len(spread)), means.T).T
        offsets = (counts / counts.sum()).log() - (filters * means).sum(dim=1) / 2
        yield Discriminant(shrinkage, filters, offsets)
