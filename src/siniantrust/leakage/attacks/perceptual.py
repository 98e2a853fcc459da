"""The perceptual inverse network: its images are to look right to the audited network itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._registry import Attack, Problem, Reconstruction

if TYPE_CHECKING:
    import torch

_WEIGHT = 0.5


def run(problem: Problem, budget: Budget, seed: int) -> Reconstruction:
    """Reconstruct by the inverse network, trained so that its images have the features that were observed as well.

    The perceptual features are those of the audited network before the cut. The decoder starts from the closed-form
    solutions, as in the attack ``inverter``; error and structure of the images remain part of the loss.

    Raises:
        InapplicableError: if the network is not known, or no gradient passes from the cut to the input.
    """
    from siniantrust.leakage.attacks._decoder import train_decoder
    from siniantrust.leakage.attacks._likelihood import Likelihood
    from siniantrust.leakage.attacks._warm import warm_start

    likelihood = Likelihood.of(problem)

    def term(features: Sequence[torch.Tensor], answer: torch.Tensor, _truth: torch.Tensor) -> torch.Tensor:
        return _WEIGHT * likelihood.misfit(answer, features).mean()

    return train_decoder(problem, warm_start(problem, budget), budget, seed, term=term)


ATTACK = Attack(
    title="Perceptual inverse network (decoder that matches features)",
    source=(
        "Dosovitskiy and Brox, NIPS 2016; Johnson, Alahi and Fei-Fei, ECCV 2016; the features are those of the "
        "audited network"
    ),
    knowledge=(
        "white box: the network before the cut with its weights; data of the same distribution with their features; "
        "trains a network on them; honest but curious"
    ),
    cost="minutes at a cut, or as long as the budget says: each step also passes through the network before the cut",
    run=run,
    kinds=("image",),
    trained=True,
    weight=4.0,
)
