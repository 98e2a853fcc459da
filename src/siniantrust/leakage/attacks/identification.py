"""Identification: which of a list of candidate inputs the features belong to."""

from __future__ import annotations

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._registry import Attack, Identification, Problem


def run(problem: Problem, budget: Budget, _seed: int) -> Identification:
    """Place features and candidates among the inputs' strongest components, where the nearest is the answer.

    A reconstruction is compared by all of its pixels, most of which features say nothing about; it also shrinks
    towards the mean, which is best for its error and worst for telling inputs apart.
    """
    from siniantrust.leakage.attacks._candidates import identify

    return identify(problem, budget)


ATTACK = Attack(
    title="Identification among candidates",
    source="kernel ridge regression (Saunders, Gammerman and Vovk, ICML 1998) onto principal components of the input",
    knowledge=(
        "black box: data of the same distribution and the features that the trusted side answers for them, and a list "
        "of candidates, one of which is the input; honest but curious"
    ),
    cost="seconds at a cut: some factorisations of a matrix of the attacker's items",
    run=run,
    kinds=("image", "array"),
    varies=False,
    weight=0.9,
)
