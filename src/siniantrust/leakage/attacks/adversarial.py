"""The adversarial inverse network: a conditional GAN from features to images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._registry import Attack, Problem, Reconstruction

if TYPE_CHECKING:
    import torch

    from siniantrust.leakage.attacks._decoder import Term

# Beside the loss of the inverse network, which is about 1 for the prior; pix2pix weighs them 1 to 100.
_WEIGHT = 0.02
_RATE = 1e-3


def run(problem: Problem, budget: Budget, seed: int) -> Reconstruction:
    """Reconstruct by the inverse network, trained against a critic as well.

    The generator is the decoder of the attack ``inverter``, which starts from the closed-form solutions. The critic
    sees images with the features that they belong to and learns to tell the true ones. What a squared error averages
    away, it asks back.
    """
    from siniantrust.leakage.attacks._decoder import train_decoder
    from siniantrust.leakage.attacks._warm import warm_start

    base = warm_start(problem, budget)
    return train_decoder(problem, base, budget, seed, term=_critic_term(problem, budget, seed))


def _critic_term(problem: Problem, budget: Budget, seed: int) -> Term:
    """Return the generator's adversarial loss; each call first takes one step of the critic."""
    import torch
    from torch.nn import functional

    from siniantrust.leakage._parallel import seeded
    from siniantrust.leakage.attacks._networks import Critic

    with seeded(seed + 1):
        critic = Critic(problem.attacker.shapes, problem.attacker_targets.shape[1:], budget.width)
    parameters = list(critic.parameters())
    optimiser = torch.optim.Adam(parameters, lr=_RATE, betas=(0.5, 0.999))

    def term(features: Sequence[torch.Tensor], answer: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        made = critic(features, answer.detach())
        # -log of the probability of being right, as in Goodfellow et al. 2014.
        wrong = functional.softplus(-critic(features, truth)).mean() + functional.softplus(made).mean()
        optimiser.zero_grad()
        torch.autograd.backward(wrong)
        optimiser.step()
        for parameter in parameters:
            parameter.requires_grad_(False)
        fooled = functional.softplus(-critic(features, answer)).mean()
        for parameter in parameters:
            parameter.requires_grad_(True)
        return _WEIGHT * fooled

    return term


ATTACK = Attack(
    title="Adversarial inverse network (conditional GAN)",
    source=(
        "Narra, Lin, Wang, Balasubramaniam and Annavaram 2019 (Origami); conditional GAN in the form of Isola, Zhu, "
        "Zhou and Efros, CVPR 2017"
    ),
    knowledge=(
        "black box: data of the same distribution and the features that the trusted side answers for them; "
        "trains two networks on them; honest but curious"
    ),
    cost="minutes at a cut, or as long as the budget says: about twice the inverse network",
    run=run,
    kinds=("image",),
    trained=True,
    weight=3.0,
)
