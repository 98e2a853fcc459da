"""Regularised maximum likelihood: the input whose features come closest to the observed ones, by gradient descent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._registry import Attack, Problem, Reconstruction

if TYPE_CHECKING:
    import torch

    from siniantrust.leakage.attacks._likelihood import Items, Likelihood

_CHECK_ITEMS = 6
# A smaller gain on the validation items is chance (as a share of the loss) or no matter (as such): the search would
# only add noise.
_LEAST_SHARE = 0.02
_LEAST_GAIN = 0.003
_WEIGHTS = (0.0, 0.01, 0.1, 0.5)
# First step sizes in units of the data range; they fall to zero along a cosine.
_RATES = (0.003, 0.02)


def run(problem: Problem, budget: Budget, _seed: int) -> Reconstruction:
    """Reconstruct the first ``optimised_items`` held-out items, each by an optimisation of its own.

    The objective is the squared distance to the observed features plus a prior: total variation for images, else the
    distance to the closed-form reconstruction from which the search starts. The prior's weight and the step size are
    those that do best on a few validation items; if none beats the start, the start is the answer,
    for all held-out items.
    """
    import torch

    from siniantrust.leakage._torch import array
    from siniantrust.leakage.attacks._likelihood import Likelihood, heldout_items, known_items
    from siniantrust.leakage.attacks._shortfall import shortfall
    from siniantrust.leakage.attacks._warm import warm_start

    likelihood = Likelihood.of(problem)
    image = problem.kind == "image"
    begun = time.monotonic()
    checks, truth = known_items(problem, budget, count=_CHECK_ITEMS)
    items = heldout_items(problem, budget, count=budget.optimised_items)
    trials = [(weight, rate) for weight in _WEIGHTS for rate in _RATES]
    settings = torch.tensor(trials).repeat_interleave(len(checks), dim=0)
    # A third of the time may go into the choice.
    found, _ = _descend(likelihood, checks.repeated(len(trials)), settings, budget, begun, share=1 / 3, image=image)
    losses = shortfall(found, truth.repeat(len(trials), *[1] * (truth.ndim - 1)), image=image)
    trial_losses = losses.reshape(len(trials), -1).mean(dim=1)
    start_loss = float(shortfall(checks.start, truth, image=image).mean())
    best = int(trial_losses.argmin())
    detail = warm_start(problem, budget).detail
    if start_loss - float(trial_losses[best]) < max(_LEAST_SHARE * start_loss, _LEAST_GAIN):
        everything = heldout_items(problem, budget, count=len(problem.heldout))
        return Reconstruction(array(everything.start), f"{detail}; optimisation gains nothing on validation items")
    settings = torch.tensor(trials[best]).expand(len(items), 2)
    answer, steps = _descend(likelihood, items, settings, budget, begun, share=1.0, image=image)
    weight, rate = trials[best]
    detail += (
        f"; {steps} steps of at most {rate:g}, prior's weight {weight:g}, "
        f"validation loss {start_loss:.3f} to {float(trial_losses[best]):.3f}"
    )
    if steps < budget.optimisation_steps:
        detail += f", stopped at {budget.attack_time_s:g} s of {budget.optimisation_steps} steps"
    return Reconstruction(array(answer), detail, stopped=steps < budget.optimisation_steps)


def _descend(
    likelihood: Likelihood,
    items: Items,
    settings: torch.Tensor,
    budget: Budget,
    begun: float,
    *,
    share: float,
    image: bool,
) -> tuple[torch.Tensor, int]:
    """Return the optimised items (N, *target shape) and the fewest steps that any took.

    ``settings`` (N, 2) holds each item's weight of the prior and step size; ``share`` of the time may be over at the
    end, which the pieces of the items divide.
    """
    import torch

    answers, fewest = [], budget.optimisation_steps
    chunks = list(items.chunks())
    for index, rows in enumerate(chunks):
        now = time.monotonic()
        deadline = now + (begun + share * budget.attack_time_s - now) / (len(chunks) - index)
        answer, steps = _descend_together(
            likelihood, items.rows(rows), settings[rows], budget.optimisation_steps, deadline, image=image
        )
        answers.append(answer)
        fewest = min(fewest, steps)
    return torch.cat(answers), fewest


def _descend_together(
    likelihood: Likelihood, items: Items, settings: torch.Tensor, most: int, deadline: float, *, image: bool
) -> tuple[torch.Tensor, int]:
    import torch

    weights = settings[:, 0]
    rates = settings[:, 1].reshape(-1, *[1] * (items.start.ndim - 1))
    # Adam's steps do not depend on the gradient's size, so that a change in units of its rate gives each item its own.
    change = torch.zeros_like(items.start).requires_grad_()
    optimiser = torch.optim.Adam([change], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, most))
    done = 0
    while done < most and (done == 0 or time.monotonic() < deadline):
        answer = items.start + rates * change
        prior = _total_variation(answer) if image else (answer - items.start).square().flatten(1).mean(dim=1)
        # Items are independent: the sum's gradient is each item's own.
        value = (likelihood.misfit(answer, items.observed) + weights * prior).sum()
        (change.grad,) = torch.autograd.grad(value, [change])
        optimiser.step()
        schedule.step()
        done += 1
        if image:
            # Back into the range of a pixel, which the attacker knows.
            with torch.no_grad():
                change.copy_(torch.clamp(change, -items.start / rates, (1 - items.start) / rates))
    answer = (items.start + rates * change).detach()
    # Rounding may leave the range by a little.
    return answer.clamp(0, 1) if image else answer, done


def _total_variation(images: torch.Tensor) -> torch.Tensor:
    """Return for each image (N,) the mean absolute difference of neighbouring pixels (Mahendran, Vedaldi 2015)."""
    down = (images[:, :, 1:] - images[:, :, :-1]).abs().flatten(1).mean(dim=1)
    across = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().flatten(1).mean(dim=1)
    return down + across


ATTACK = Attack(
    title="Regularised maximum likelihood (gradient descent on the input)",
    source=(
        "He, Zhang and Lee, ACSAC 2019, with the total variation of Mahendran and Vedaldi, CVPR 2015; "
        "started from a regression"
    ),
    knowledge=(
        "white box: the network before the cut with its weights; data of the same distribution with their features, "
        "to start from and to choose the prior's weight; honest but curious"
    ),
    cost="seconds to minutes at a cut: some dozen passes back and forth through the network for each item",
    run=run,
    kinds=("image", "array"),
    varies=False,
    weight=1.5,
)
