"""Query-free inversion: a shadow of the trusted side stands in for it, and what inverts the shadow inverts the cut."""

from __future__ import annotations

import time
from dataclasses import replace

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._registry import Attack, InapplicableError, Problem, Reconstruction

_SHADOWS = 3


def run(problem: Problem, budget: Budget, seed: int) -> Reconstruction:
    """Reconstruct by an inverse network that was trained on a shadow's features and sees the real ones only at last.

    Shadows are trained so that the untrusted side gives the right labels on them. Their inversion is that of the attack
    ``inverter``: kernel regression, local regression and a decoder. There are several, begun differently, and the
    inversion is learned on all of them, so that it does not rely on what one shadow made up.
    """
    from siniantrust.leakage.attacks import inverter
    from siniantrust.leakage.attacks._shadow import shadow_features, train_shadow

    if problem.white_box is None:
        raise InapplicableError("the untrusted side is not known as a network that PyTorch can run")
    network, begun = problem.white_box(), time.monotonic()
    shadows, accuracies = [], []
    for index in range(_SHADOWS):
        # Half of the time is for the shadows, half for what inverts them.
        deadline = begun + (index + 1) / _SHADOWS * budget.attack_time_s / 2
        shadow, accuracy = train_shadow(problem, network, budget, seed + index, deadline=deadline)
        shadows.append(shadow)
        accuracies.append(accuracy)
    stopped = time.monotonic() - begun > budget.attack_time_s / 2
    # What a shadow makes up is no truth that more of it would come closer to: half of the items tell as much.
    known = problem.first((len(problem.attacker) + 1) // 2)
    stand_in = replace(
        known,
        attacker=shadow_features(shadows, known.attacker_targets, problem.heldout),
        validation=shadow_features(shadows, problem.validation_targets, problem.heldout),
        white_box=None,
    )
    answer = inverter.run(stand_in, replace(budget, attack_time_s=budget.attack_time_s / 2), seed)
    detail = f"{_SHADOWS} shadows, right on {min(accuracies):.0%} to {max(accuracies):.0%} of their last labels"
    return Reconstruction(answer.heldout, f"{detail}; {answer.detail}", stopped or answer.stopped)


ATTACK = Attack(
    title="Query-free inversion (shadow of the trusted side)",
    source="He, Zhang and Lee, ACSAC 2019, query-free attack",
    knowledge=(
        "the network after the cut with its weights, labelled data of the same distribution, and the features of the "
        "items under attack with how they are normalised; neither knows the trusted side nor ever asks it"
    ),
    cost="a minute at a cut: a shadow network is trained, then an inverse network",
    run=run,
    trained=True,
    weight=4.0,
)
