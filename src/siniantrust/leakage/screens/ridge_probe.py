"""A ridge probe: how well a quick linear reconstruction does, without choosing anything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._metrics import psnr
from siniantrust.leakage._plateau import plateau
from siniantrust.leakage._products import products, solved
from siniantrust.leakage._registry import Screen, ScreenScore, ScreenView

_PENALTY = 1e-2


def score(view: ScreenView, budget: Budget, seed: int) -> ScreenScore:
    """Return the probe's gain over the mean input in decibels; raw: ``psnr`` and ``psnr_mean`` in decibels.

    Linear ridge regression in dual form with a fixed penalty, fitted on three quarters of the items and scored on the
    rest.
    """
    del seed
    count = min(budget.screen_items, len(view.inputs))
    fitted = max(1, count * 3 // 4)
    rows = view.features.flat(slice(0, count))
    rows = rows - rows[:fitted].mean(axis=0)
    inner = products(rows, rows[:fitted]).astype(np.float64)
    inner /= max(float(np.trace(inner[:fitted])) / fitted, 1e-12)
    inputs = view.inputs[:count].reshape(count, -1).astype(np.float64)
    mean = inputs[:fitted].mean(axis=0)
    weights = solved(inner[:fitted] + _PENALTY * np.eye(fitted), inputs[:fitted] - mean)
    guessed = products(inner[fitted:], weights.T) + mean
    raw = {
        "psnr": psnr(guessed, inputs[fitted:]),
        "psnr_mean": psnr(np.broadcast_to(mean, guessed.shape), inputs[fitted:]),
    }
    return ScreenScore(score=raw["psnr"] - raw["psnr_mean"], raw=raw)


def pick(scores: Sequence[ScreenScore]) -> int | None:
    """Return where the gain has reached its plateau."""
    return plateau([entry.score for entry in scores])


SCREEN = Screen(
    title="Ridge probe (PSNR over the mean input)",
    source="Hoerl and Kennard 1970, as a probe of what is linearly readable",
    score=score,
    pick=pick,
)
