"""Attribute inference: a private label of the input, guessed from its features."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._registry import Attack, Guess, InapplicableError, Problem

if TYPE_CHECKING:
    import torch

_COMPONENTS = 128
_RATE = 3e-3
# A step of so small a network costs little.
_STEPS = 10
_CHECK_STEPS = 20


def run(problem: Problem, budget: Budget, seed: int) -> Guess:
    """Guess the private label by kernel regression on it, or by a perceptron on 128 whitened principal components.

    Which of them, with which kernel and penalty, or after how many steps, is chosen on the validation items; the most
    common label is the answer if none does better there.

    Raises:
        InapplicableError: if the data name no private label.
    """
    from siniantrust.leakage._torch import array, tensor

    if problem.attacker_attribute is None or problem.validation_attribute is None:
        raise InapplicableError("the data name no private attribute (key 'attribute')")
    labels, classes = np.unique(problem.attacker_attribute, return_inverse=True)
    known = tensor(classes.astype(np.int64))
    # A label that the attacker never saw is never right.
    position = np.searchsorted(labels, problem.validation_attribute).clip(0, len(labels) - 1)
    checks = tensor(np.where(labels[position] == problem.validation_attribute, position, -1).astype(np.int64))
    common = int(known.bincount().argmax())
    best, detail = float((checks == common).double().mean()), "nothing learned: the most common label"
    first = best
    guess = checks.new_full((len(problem.heldout),), common)
    stopped = False
    if len(labels) > 1:
        for trial in (_kernel_guess, _perceptron_guess):
            share, found, how, late = trial(problem, budget, seed, known, checks)
            stopped = stopped or late
            if share > best:
                best, guess, detail = share, found, how
    detail += f"; right on {best:.0%} of validation items, the most common {first:.0%}"
    return Guess(labels[array(guess)], detail, stopped)


def _kernel_guess(
    problem: Problem, budget: Budget, seed: int, known: torch.Tensor, checks: torch.Tensor
) -> tuple[float, torch.Tensor, str, bool]:
    """Return the share of validation items that kernel ridge regression gets right, its guesses, and with which.

    Last comes whether the time ran out before it was trained: never.
    """
    from torch.nn import functional

    from siniantrust.leakage.attacks._kernel import smoother

    wanted = functional.one_hot(known).float()

    def share(matrix: torch.Tensor) -> float:
        answer = (matrix @ wanted[: matrix.shape[1]]).argmax(dim=1)
        return float((answer == checks).double().mean())

    matrix, how = smoother(problem, budget, seed, share)
    return share(matrix[: len(checks)]), (matrix[len(checks) :] @ wanted).argmax(dim=1), how, False


def _perceptron_guess(
    problem: Problem, budget: Budget, seed: int, known: torch.Tensor, checks: torch.Tensor
) -> tuple[float, torch.Tensor, str, bool]:
    """Return the same for a network with two hidden layers."""
    import torch
    from torch import nn
    from torch.nn import functional

    from siniantrust.leakage._parallel import seeded
    from siniantrust.leakage._torch import generator
    from siniantrust.leakage.attacks._coordinates import coordinates
    from siniantrust.leakage.attacks._kernel import gram_of

    inputs = coordinates(gram_of(problem, budget, seed), _COMPONENTS)
    count, hidden, source = len(known), 4 * budget.width, generator(seed)
    with seeded(seed):
        network = nn.Sequential(
            nn.Linear(inputs.shape[1], hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, int(known.max()) + 1),
        )
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=1e-2)
    started, best, late = time.monotonic(), (-1.0, known[:0], ""), False
    for done in range(1, _STEPS * budget.steps + 1):
        rows = torch.randint(0, count, (4 * budget.batch_items,), generator=source)
        optimiser.zero_grad()
        torch.autograd.backward(functional.cross_entropy(network(inputs[rows]), known[rows]))
        optimiser.step()
        late = time.monotonic() - started > budget.attack_time_s
        if done % _CHECK_STEPS == 0 or done == _STEPS * budget.steps or late:
            with torch.no_grad():
                answer = network(inputs[count:]).argmax(dim=1)
            share = float((answer[: len(checks)] == checks).double().mean())
            if share > best[0]:
                best = (share, answer[len(checks) :], f"perceptron of width {hidden}, {done} steps")
        if late:
            break
    return *best, late


ATTACK = Attack(
    title="Attribute inference (private label)",
    source="Song and Shmatikov, ICLR 2020",
    knowledge=(
        "black box: data of the same distribution with their private labels and the features that the trusted side "
        "answers for them; honest but curious"
    ),
    cost="seconds at a cut: some factorisations of a matrix of the attacker's items, and a small network",
    run=run,
    kinds=("image", "array", "token"),
    trained=True,
    weight=0.8,
)
