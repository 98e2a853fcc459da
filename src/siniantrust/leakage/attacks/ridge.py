"""Linear and kernel ridge regression: the attack without training, which no permutation of features can stop."""

from __future__ import annotations

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._registry import Attack, Problem, Reconstruction


def run(problem: Problem, budget: Budget, _seed: int) -> Reconstruction:
    """Reconstruct by regression from all features to all pixels; kernel and penalty are chosen on validation items."""
    from siniantrust.leakage._torch import array
    from siniantrust.leakage.attacks._kernel import kernel_regression

    found = kernel_regression(problem, budget, 0)
    answer = array(found.heldout).reshape(-1, *problem.attacker_targets.shape[1:])
    # The attacker knows the range of a pixel.
    return Reconstruction(answer.clip(0, 1) if problem.kind == "image" else answer, found.detail)


ATTACK = Attack(
    title="Ridge regression (linear or Gaussian kernel)",
    source="Hoerl and Kennard 1970; in kernel form Saunders, Gammerman and Vovk, ICML 1998",
    knowledge=(
        "black box: data of the same distribution and the features that the trusted side answers for them; "
        "honest but curious"
    ),
    cost="seconds at a cut: one factorisation of a matrix of the attacker's items",
    run=run,
    varies=False,
)
