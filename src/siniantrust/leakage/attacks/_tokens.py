"""Token data as the attacks read them: the vocabulary that was seen, and features in the order of the tokens."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from siniantrust.leakage._features import FeatureSet
from siniantrust.leakage._registry import Problem
from siniantrust.leakage._torch import tensor

_CHUNK_ITEMS = 250
_LEAST_VARIANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Tokens:
    """The attacker's tokens (N, length) and the validation items', as places in ``vocabulary``, sorted token numbers.

    Tokens that the attacker has never seen are -1: no guess is ever right there.
    """

    vocabulary: np.ndarray = field(repr=False)
    known: torch.Tensor = field(repr=False)
    checks: torch.Tensor = field(repr=False)

    @classmethod
    def of(cls, problem: Problem) -> Tokens:
        """Return the tokens of a problem; targets (N, ...) count as (N, length)."""
        known = problem.attacker_targets.reshape(len(problem.attacker_targets), -1)
        checks = problem.validation_targets.reshape(len(problem.validation_targets), -1)
        vocabulary = np.unique(known)
        places = np.searchsorted(vocabulary, checks).clip(0, len(vocabulary) - 1)
        return cls(
            vocabulary=vocabulary,
            known=tensor(np.searchsorted(vocabulary, known).astype(np.int64)),
            checks=tensor(np.where(vocabulary[places] == checks, places, -1).astype(np.int64)),
        )

    def right(self, answer: torch.Tensor) -> float:
        """Return the share of the validation tokens that ``answer`` (N, length) has right."""
        return float((answer == self.checks).double().mean())

    def common(self, items: int) -> torch.Tensor:
        """Return the most common token of each position, for ``items`` items: the answer without features."""
        return self.known.mode(dim=0).values.expand(items, -1)

    def numbers(self, answer: torch.Tensor, problem: Problem) -> np.ndarray:
        """Return places (N, length) as the token numbers that they stand for, in the targets' shape and type."""
        found: np.ndarray = self.vocabulary[answer.cpu().numpy()]
        return found.reshape(-1, *problem.attacker_targets.shape[1:]).astype(problem.attacker_targets.dtype)


@dataclass(frozen=True, slots=True)
class Sequences:
    """Features of all items at each token's position, (items, length, numbers), whitened; split as in the problem."""

    attacker: torch.Tensor = field(repr=False)
    validation: torch.Tensor = field(repr=False)
    heldout: torch.Tensor = field(repr=False)

    @property
    def asked(self) -> torch.Tensor:
        """The validation items and then the held-out ones."""
        return torch.cat([self.validation, self.heldout])


def sequences(problem: Problem, length: int, *, most: int) -> Sequences | None:
    """Return the tensors that have an axis as long as the tokens, as at most ``most`` principal components.

    Every position's own mean is taken off, so that only what the token says is left. None if no tensor has such an
    axis, as where features are pooled or were reduced.
    """
    axes = {index: shape.index(length) for index, shape in enumerate(problem.attacker.shapes) if length in shape[:-1]}
    if not axes:
        return None
    known = _read(problem.attacker, axes)
    mean = known.mean(dim=0)
    flat = (known - mean).flatten(0, 1)
    variances, vectors = torch.linalg.eigh((flat.T @ flat / len(flat)).double())
    kept = int((variances > _LEAST_VARIANCE * variances[-1].clamp_min(1e-12)).sum())
    kept = max(1, min(kept, most))
    filters = (vectors[:, -kept:] / variances[-kept:].clamp_min(1e-12).sqrt()).float()
    rest = ((_read(part, axes) - mean) @ filters for part in (problem.validation, problem.heldout))
    return Sequences((known - mean) @ filters, *rest)


def _read(features: FeatureSet, axes: dict[int, int]) -> torch.Tensor:
    """Return the tensors with their sequence axis first, all other numbers behind it, side by side."""
    parts = [tensor(features.tensor(index)).movedim(axis + 1, 1).flatten(2) for index, axis in axes.items()]
    return torch.cat(parts, dim=2)
