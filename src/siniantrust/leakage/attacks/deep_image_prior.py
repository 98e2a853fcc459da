"""Deep image prior: the image that an untrained convolutional network makes, fitted to the observed features."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._registry import Attack, Problem, Reconstruction

if TYPE_CHECKING:
    import torch

    from siniantrust.leakage.attacks._likelihood import Items, Likelihood

_CHECK_ITEMS = 8
# A smaller gain on the validation items, as a share of the loss, is chance.
_LEAST_GAIN = 0.02
# A network for each item costs more than its pixels: fewer items, and more steps, since it starts from nothing.
_FEWER_ITEMS = 4
_MORE_STEPS = 2
_RATE = 1e-3


def run(problem: Problem, budget: Budget, seed: int) -> Reconstruction:
    """Reconstruct a quarter of the ``optimised_items``, each by the weights of an untrained network of its own.

    The network makes the image from noise, or it corrects the closed-form reconstruction: whichever does better on a
    few validation items; if neither beats the closed form, that is the answer,
    for all held-out items.
    """
    from siniantrust.leakage._torch import array
    from siniantrust.leakage.attacks._likelihood import Likelihood, heldout_items, known_items
    from siniantrust.leakage.attacks._shortfall import shortfall
    from siniantrust.leakage.attacks._warm import warm_start

    likelihood = Likelihood.of(problem)
    begun = time.monotonic()
    most = _MORE_STEPS * budget.optimisation_steps
    checks, truth = known_items(problem, budget, count=_CHECK_ITEMS)
    items = heldout_items(problem, budget, count=max(1, budget.optimised_items // _FEWER_ITEMS))
    start_loss = float(shortfall(checks.start, truth, image=True).mean())
    losses, stopped = {}, False
    for index, residual in enumerate((True, False)):
        deadline = begun + (index + 1) / 4 * budget.attack_time_s
        found, tried = _fit(likelihood, checks, most, deadline, residual=residual, seed=seed)
        stopped = stopped or tried < most
        losses[residual] = float(shortfall(found, truth, image=True).mean())
    residual = min(losses, key=lambda each: losses[each])
    detail = warm_start(problem, budget).detail
    if losses[residual] > (1 - _LEAST_GAIN) * start_loss:
        everything = heldout_items(problem, budget, count=len(problem.heldout))
        return Reconstruction(
            array(everything.start), f"{detail}; a network's prior gains nothing on validation items", stopped
        )
    answer, steps = _fit(likelihood, items, most, begun + budget.attack_time_s, residual=residual, seed=seed)
    form = "a network corrects it" if residual else "a network makes the image from noise"
    detail += f"; {form}, {steps} steps, validation loss {start_loss:.3f} to {losses[residual]:.3f}"
    if steps < most:
        detail += f", stopped at {budget.attack_time_s:g} s of {most} steps"
    return Reconstruction(array(answer), detail, stopped or steps < most)


def _fit(
    likelihood: Likelihood, items: Items, most: int, deadline: float, *, residual: bool, seed: int
) -> tuple[torch.Tensor, int]:
    """Return the fitted images (N, *target shape) and the fewest steps that any took."""
    import torch

    from siniantrust.leakage.attacks._untrained import UntrainedNetworks

    answers, fewest = [], most
    chunks = list(items.chunks())
    for index, rows in enumerate(chunks):
        part = items.rows(rows)
        now = time.monotonic()
        until = now + (deadline - now) / (len(chunks) - index)
        networks = UntrainedNetworks(part.start, residual=residual, seed=seed)
        optimiser = torch.optim.Adam(networks.weights, lr=_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, most))
        done = 0
        while done < most and (done == 0 or time.monotonic() < until):
            value = likelihood.misfit(networks.images(), part.observed).sum()
            optimiser.zero_grad()
            torch.autograd.backward(value)
            optimiser.step()
            schedule.step()
            done += 1
        with torch.no_grad():
            answers.append(networks.images())
        fewest = min(fewest, done)
    return torch.cat(answers), fewest


ATTACK = Attack(
    title="Deep image prior (an untrained network fitted to the features)",
    source="Ulyanov, Vedaldi and Lempitsky, CVPR 2018; the likelihood of He, Zhang and Lee, ACSAC 2019",
    knowledge=(
        "white box: the network before the cut with its weights; data of the same distribution with their features, "
        "to start from and to choose the form; honest but curious"
    ),
    cost="seconds to minutes at a cut: a small network of its own is trained for each item",
    run=run,
    kinds=("image",),
    weight=3.0,
)
