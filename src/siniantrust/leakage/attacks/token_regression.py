"""Token inversion by classifiers: from features to the token at each position."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._registry import Attack, Problem, Reconstruction

if TYPE_CHECKING:
    import torch

    from siniantrust.leakage.attacks._tokens import Sequences, Tokens

_COMPONENTS = 256
_WINDOWS = (1, 3)


def run(problem: Problem, budget: Budget, seed: int) -> Reconstruction:
    """Answer with the classifier that does best on the validation items.

    They are: linear discriminants on each position with and without its neighbours, where the features have a sequence
    axis; kernel ridge regression from all features to the token at each position, which also reads pooled
    vectors; and a transformer with one layer. The most common token of each position is the answer if none does better.
    """
    from siniantrust.leakage.attacks._token_decoder import train_token_decoder
    from siniantrust.leakage.attacks._tokens import Tokens, sequences

    tokens = Tokens.of(problem)
    found = sequences(problem, tokens.known.shape[1], most=_COMPONENTS)
    checks = len(tokens.checks)
    first = best = tokens.right(tokens.common(checks))
    answer, detail = tokens.common(len(problem.heldout)), "nothing learned: the most common tokens"
    decoded, how_decoded, stopped = train_token_decoder(problem, tokens, found, budget, seed)
    trials = [_by_vector(problem, tokens, budget, seed), (decoded, how_decoded)]
    if found is not None:
        trials += [_by_position(tokens, found, window) for window in _WINDOWS]
    for asked, how in trials:
        share = tokens.right(asked[:checks])
        if share > best:
            best, answer, detail = share, asked[checks:], how
    detail = f"{detail}; right on {best:.0%} of validation tokens, the most common {first:.0%}"
    return Reconstruction(tokens.numbers(answer, problem), detail, stopped)


def _by_position(tokens: Tokens, found: Sequences, window: int) -> tuple[torch.Tensor, str]:
    """Return the places of tokens (validation and held-out items, length) by discriminants on a window."""
    from siniantrust.leakage.attacks._discriminant import discriminants

    known, checks, asked = (_windows(part, window) for part in (found.attacker, found.validation, found.asked))
    best = max(
        discriminants(known.flatten(0, 1), tokens.known.flatten()),
        key=lambda trial: tokens.right(trial.classes(checks)),
    )
    return best.classes(asked), f"discriminants on windows of {window}, shrinkage {best.shrinkage:g}"


def _windows(vectors: torch.Tensor, window: int) -> torch.Tensor:
    """Return each position with its neighbours, (N, length, window x numbers)."""
    import torch
    from torch.nn import functional

    reach, length = window // 2, vectors.shape[1]
    padded = functional.pad(vectors, (0, 0, reach, reach))
    return torch.cat([padded[:, start : start + length] for start in range(window)], dim=2)


def _by_vector(problem: Problem, tokens: Tokens, budget: Budget, seed: int) -> tuple[torch.Tensor, str]:
    """Return the same by kernel ridge regression from all of an item's features to each position by itself."""
    from siniantrust.leakage.attacks._kernel import smoother

    matrix, how = smoother(problem, budget, seed, lambda trial: tokens.right(_smoothed(trial, tokens)))
    return _smoothed(matrix, tokens), how


def _smoothed(matrix: torch.Tensor, tokens: Tokens) -> torch.Tensor:
    """Return the places of the highest scores, (rows of the smoother, length)."""
    import torch

    answer = []
    for words in tokens.known[: matrix.shape[1]].T:
        scores = torch.zeros(len(matrix), len(tokens.vocabulary)).index_add_(1, words, matrix)
        answer.append(scores.argmax(dim=1))
    return torch.stack(answer, dim=1)


ATTACK = Attack(
    title="Token inversion (classifiers of positions, vectors, and a transformer)",
    source="Song and Raghunathan, CCS 2020; Morris, Kuleshov, Shmatikov and Rush, EMNLP 2023",
    knowledge=(
        "black box: texts of the same distribution and the features that the trusted side answers for them; "
        "trains a network on them; honest but curious"
    ),
    cost="a minute at a cut, or as long as the budget says: linear systems, and gradient steps of a small transformer",
    run=run,
    kinds=("token",),
    trained=True,
)
