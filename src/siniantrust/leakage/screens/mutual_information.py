"""A lower bound of the mutual information between features and input, by telling an input among others."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._plateau import plateau
from siniantrust.leakage._products import products
from siniantrust.leakage._registry import Screen, ScreenScore, ScreenView

_COMPONENTS = 64
_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
_LEARNING_RATE = 0.03
# The share of the first half that chooses when to stop, and how often it is asked.
_CHOOSING_SHARE, _EVERY_STEPS = 0.25, 5
_MIN_ITEMS = 16
# The middle of the unit scale.
_GREY = 0.5


def score(view: ScreenView, budget: Budget, seed: int) -> ScreenScore | None:
    """Return a lower bound of I(input; features) in nats, at least 0 and at most ln N.

    InfoNCE (van den Oord et al. 2018): a critic f learns to tell for N pairs which features belong to which input, and
    I(x; z) >= ln N + mean over i of [f(x_i, z_i) - ln sum_j exp f(x_i, z_j)]. The critic is separable:
    f = -|s * (x - c * r(z))|² / 2 over the 64 main components of the inputs, with r(z) the ridge prediction of them and
    weights s and c trained by gradient on the bound. It learns from one half of the items, where r leaves out the very
    item that it predicts, and is applied to the other half, so that overfitting cannot raise the bound. The bound holds
    in expectation over items. It says nothing of information beyond ln N (N is half of the items), nor of what is not
    linearly readable.

    Raw: ``information_nats``, the score; ``largest_nats``, ln N. None for tokens and for fewer than 16 items.
    """
    del seed
    count = min(budget.screen_items, len(view.inputs))
    if view.kind == "token" or count < _MIN_ITEMS:
        return None
    trained = count // 2
    features = _components(view.features.flat(slice(0, count)), trained, trained)
    inputs = _components(view.inputs[:count].reshape(count, -1) - _GREY, trained, _COMPONENTS)
    found = _held_out(inputs, _predicted(features, inputs[:trained]), trained, steps=budget.discriminator_steps)
    largest = math.log(count - trained)
    information = min(max(found, 0.0), largest)
    return ScreenScore(score=information, raw={"information_nats": information, "largest_nats": largest})


def pick(scores: Sequence[ScreenScore]) -> int | None:
    """Return where the bound has reached its plateau."""
    return plateau([entry.score for entry in scores])


def _components(rows: np.ndarray, fitted: int, most: int) -> np.ndarray:
    """Return rows (N, width) in the main components of the first ``fitted``, float64 (N, components).

    All are scaled alike, so that those first rows have a mean squared length of 1. They are not centred: around their
    own mean each would be minus the sum of the others, and leaving one out would hide nothing.
    """
    # By way of inner products, since rows are wider than they are many.
    inner = products(rows, rows[:fitted]).astype(np.float64)
    inner /= max(float(np.trace(inner[:fitted])) / fitted, 1e-12)
    values, vectors = np.linalg.eigh(inner[:fitted])
    kept = values > max(float(values[-1]), 0.0) * 1e-7
    values, vectors = values[kept][-most:], vectors[:, kept][:, -most:]
    coordinates: np.ndarray = inner @ (vectors / np.sqrt(values))
    return coordinates


def _predicted(features: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Return ridge predictions (N, components) of the inputs of all items, learnt from the first, ``inputs``.

    Those first items are each predicted from the others (leave-one-out, by the hat matrix); the penalty is the one
    that predicts them best.
    """
    features = np.column_stack([features, np.ones(len(features))])
    first = features[: len(inputs)]
    best, found = math.inf, np.zeros((len(features), inputs.shape[1]))
    for penalty in _PENALTIES:
        solution = np.linalg.solve(first.T @ first + penalty * np.eye(first.shape[1]), first.T)
        answers = features @ (solution @ inputs)
        influence = np.einsum("ij,ji->i", first, solution)[:, None]
        answers[: len(inputs)] = (answers[: len(inputs)] - influence * inputs) / np.maximum(1 - influence, 1e-9)
        error = float(((answers[: len(inputs)] - inputs) ** 2).sum())
        if error < best:
            best, found = error, answers
    return found


def _held_out(inputs: np.ndarray, predicted: np.ndarray, trained: int, *, steps: int) -> float:
    """Train the critic's weights on the first ``trained`` items and return its bound in nats on the others."""
    import torch

    from siniantrust.leakage._torch import tensor

    left, right = tensor(inputs.astype(np.float32)), tensor(predicted.astype(np.float32))
    # The precision of each component's prediction: what the weights are if all is Gaussian.
    residual = (left[:trained] - right[:trained]).square().mean(dim=0)
    sharpness = (-0.5 * (residual + 1e-9).log()).requires_grad_()
    gain = torch.ones_like(residual).requires_grad_()

    def bound(rows: slice) -> torch.Tensor:
        weights = sharpness.exp()
        scores = -torch.cdist(left[rows] * weights, right[rows] * weights * gain).square() / 2
        return math.log(len(scores)) + torch.log_softmax(scores, dim=1).diagonal().mean()

    fitted = trained - max(2, int(trained * _CHOOSING_SHARE))
    optimiser = torch.optim.Adam([sharpness, gain], lr=_LEARNING_RATE)
    best, found = -math.inf, 0.0
    for step in range(steps + 1):
        if step % _EVERY_STEPS == 0:
            with torch.no_grad():
                chosen = float(bound(slice(fitted, trained)))
                if chosen > best:
                    best, found = chosen, float(bound(slice(trained, None)))
        optimiser.zero_grad()
        torch.autograd.backward(-bound(slice(0, fitted)))
        optimiser.step()
    return found


SCREEN = Screen(
    title="Mutual information (InfoNCE lower bound)",
    source="van den Oord, Li and Vinyals, Representation Learning with Contrastive Predictive Coding, arXiv 1807.03748",
    cost="under a second at a cut: a small critic is trained",
    score=score,
    pick=pick,
)
