"""Embedding inversion by a learned dictionary: each token is the one whose mean embedding is nearest."""

from __future__ import annotations

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._registry import Attack, InapplicableError, Problem, Reconstruction

_COMPONENTS = 512


def run(problem: Problem, _budget: Budget, _seed: int) -> Reconstruction:
    """Answer at each position with the token whose mean feature vector is nearest.

    Means are over the attacker's items, with each position's own mean taken off. Distances are Mahalanobis distances by
    the spread within a token, shrunk towards the whitened Euclidean distance as far as does best on the validation
    items; a token's frequency counts as in linear discriminant analysis. Tokens that the attacker never saw are never
    guessed.

    Raises:
        InapplicableError: if no tensor of the cut has an axis as long as the tokens.
    """
    from siniantrust.leakage.attacks._discriminant import discriminants
    from siniantrust.leakage.attacks._tokens import Tokens, sequences

    tokens = Tokens.of(problem)
    length = tokens.known.shape[1]
    found = sequences(problem, length, most=_COMPONENTS)
    if found is None:
        raise InapplicableError(f"no tensor of the cut has an axis of the tokens' length {length}")
    first = best = tokens.right(tokens.common(len(tokens.checks)))
    answer, detail = tokens.common(len(found.heldout)), "nothing learned: the most common tokens"
    for nearest in discriminants(found.attacker.flatten(0, 1), tokens.known.flatten()):
        share = tokens.right(nearest.classes(found.validation))
        if share > best:
            best, answer = share, nearest.classes(found.heldout)
            detail = f"{len(tokens.vocabulary)} tokens seen, shrinkage {nearest.shrinkage:g}"
    detail += f"; right on {best:.0%} of validation tokens, the most common {first:.0%}"
    return Reconstruction(tokens.numbers(answer, problem), detail)


ATTACK = Attack(
    title="Embedding inversion (nearest mean in a learned dictionary)",
    source=(
        "Song and Raghunathan, CCS 2020, with the discriminant of Fisher 1936 for a distance; tokens read off hidden "
        "states as in prompt inversion of split language models"
    ),
    knowledge=(
        "black box: texts of the same distribution and the features that the trusted side answers for them; "
        "honest but curious"
    ),
    cost="seconds at a cut: a mean for each token, and distances to all of them",
    run=run,
    varies=False,
    kinds=("token",),
    weight=0.6,
)
