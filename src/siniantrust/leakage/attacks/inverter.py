"""The inverse network: a decoder trained from features to inputs, starting from the closed-form solutions."""

from __future__ import annotations

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._registry import Attack, Problem, Reconstruction


def run(problem: Problem, budget: Budget, seed: int) -> Reconstruction:
    """Reconstruct in three steps: kernel regression, local regression on maps, then a decoder for what is left.

    Each step is kept only if it does better on the validation items. The decoder learns from leave-one-out
    reconstructions of the attacker's own items, which are as imperfect as those of new items.
    """
    from siniantrust.leakage.attacks._decoder import train_decoder
    from siniantrust.leakage.attacks._warm import warm_start

    return train_decoder(problem, warm_start(problem, budget), budget, seed)


ATTACK = Attack(
    title="Inverse network (trained decoder)",
    source="Dosovitskiy and Brox, CVPR 2016; as an attack on split inference He, Zhang and Lee, ACSAC 2019",
    knowledge=(
        "black box: data of the same distribution and the features that the trusted side answers for them; "
        "trains a network on them; honest but curious"
    ),
    cost="a minute at a cut, or as long as the budget says: gradient steps of a small network",
    run=run,
    trained=True,
    weight=2.0,
)
