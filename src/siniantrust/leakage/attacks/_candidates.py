"""Placing features among candidate inputs: in a space where those that differ lie apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn import functional

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._parallel import seeded
from siniantrust.leakage._registry import Identification, Problem
from siniantrust.leakage._torch import array, tensor
from siniantrust.leakage.attacks._kernel import Gram, gram_of, kernel_matrix, ridge_weights

_KERNELS = ("linear", "gaussian 0.25", "gaussian 1", "gaussian 4")
_PENALTIES = (1e-4, 1e-3, 1e-2)
# Kernels and penalties are compared on this many items, which costs little.
_SEARCH_ITEMS = 1500
_WIDTHS = (4, 8, 16, 32, 64)
# Exponents of a component's spread by which it is divided: 0 leaves it, 0.5 brings all closer to each other.
_POWERS = (0.0, 0.25, 0.5)


@dataclass(frozen=True, slots=True)
class _Space:
    """Principal components, the first ``len(scale)`` and each scaled, compared by angle or by distance."""

    scale: torch.Tensor = field(repr=False)
    cosine: bool

    def place(self, components: torch.Tensor) -> torch.Tensor:
        return components[:, : len(self.scale)] * self.scale


@dataclass(frozen=True, slots=True)
class _Trial:
    """A kernel, a penalty and a space, how well they find the validation items, and where all items lie."""

    score: float
    kernel: str
    penalty: float
    space: _Space
    answers: torch.Tensor = field(repr=False)


def identify(problem: Problem, budget: Budget) -> Identification:
    """Place the held-out items by kernel regression onto the inputs' principal components.

    How many, how scaled, and with which kernel and penalty, is what finds the validation items best among each other
    (mean reciprocal rank).
    """
    gram, checks = gram_of(problem, budget, 0), len(problem.validation)
    known = tensor(problem.attacker_targets.reshape(gram.attackers, -1))
    centre = known.mean(dim=0)
    with seeded(0):
        _, spread, directions = torch.pca_lowrank(known - centre, min(max(_WIDTHS), *known.shape), center=False)
    placed = (known - centre) @ directions
    truth = (tensor(problem.validation_targets.reshape(checks, -1)) - centre) @ directions
    few = _best(gram, placed, truth, spread, min(_SEARCH_ITEMS, gram.attackers), _KERNELS, _PENALTIES)
    # More items usually bear a smaller penalty.
    finer = (few.penalty, few.penalty / 10) if few else ()
    best = _best(gram, placed, truth, spread, gram.attackers, (few.kernel,), finer) if few else None
    if best is None:
        return Identification(
            array(torch.zeros(len(problem.heldout), 1)),
            array(torch.zeros(1, len(centre))),
            array(centre),
            cosine=False,
            detail="nothing learned: no kernel matrix could be factorised",
        )
    width = len(best.space.scale)
    return Identification(
        array(best.space.place(best.answers[checks:])),
        array((directions[:, :width] * best.space.scale).T),
        array(centre),
        cosine=best.space.cosine,
        detail=(
            f"{best.kernel} kernel, penalty {best.penalty:g}, {width} components by "
            f"{'angle' if best.space.cosine else 'distance'}; mean reciprocal rank {best.score:.2f} among {checks} "
            "validation items"
        ),
    )


def _best(
    gram: Gram,
    placed: torch.Tensor,
    truth: torch.Tensor,
    spread: torch.Tensor,
    columns: int,
    kernels: Sequence[str],
    penalties: Sequence[float],
) -> _Trial | None:
    """Return the best trial of an attacker with the first ``columns`` items; None if no system could be solved."""
    trials = []
    for name in kernels:
        kernel = kernel_matrix(gram, name, rows=slice(None), columns=columns)
        for penalty in penalties:
            weights = ridge_weights(kernel[:columns], placed[:columns], penalty)
            if weights is not None:
                answers = kernel[gram.attackers :] @ weights
                found = answers[: len(truth)]
                trials += [
                    _Trial(_reciprocal_rank(space, found, truth), name, penalty, space, answers)
                    for space in _spaces(spread)
                ]
    return max(trials, key=lambda trial: trial.score, default=None)


def _spaces(spread: torch.Tensor) -> Iterator[_Space]:
    floor = 1e-6 * spread[0].clamp_min(1e-12)
    for width in dict.fromkeys(min(width, len(spread)) for width in _WIDTHS):
        for power in _POWERS:
            scale = spread[:width].clamp_min(floor) ** -power
            yield from (_Space(scale, cosine) for cosine in (False, True))


def _reciprocal_rank(space: _Space, answers: torch.Tensor, truth: torch.Tensor) -> float:
    """Return the mean of 1 / rank of each answer's own truth among all, nearest first."""
    first, second = space.place(answers), space.place(truth)
    if space.cosine:
        first, second = functional.normalize(first), functional.normalize(second)
    distances = torch.cdist(first, second)
    return float((1 / (distances <= distances.diagonal()[:, None]).sum(dim=1)).mean())
