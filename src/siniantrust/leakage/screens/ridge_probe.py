"""A ridge probe: how well a quick linear reconstruction does, without choosing anything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._estimates import estimate
from siniantrust.leakage._metrics import Scores, has_ssim, psnr, reidentified, ssim_per_item
from siniantrust.leakage._plateau import plateau
from siniantrust.leakage._products import products, solved
from siniantrust.leakage._registry import Screen, ScreenScore, ScreenView

_PENALTY = 1e-2
_MIN_ITEMS = 2


def score(view: ScreenView, budget: Budget, seed: int) -> ScreenScore | None:
    """Return the probe's gain over the mean input in decibels; raw: ``psnr`` and ``psnr_mean`` in decibels.

    Linear ridge regression in dual form with a fixed penalty, fitted on three quarters of the items and scored on the
    rest. None for tokens.

    The probe is an attack too, if a weak one. Raw holds one-sided 95 % lower bounds of what it leaks on the items that
    it was not fitted on, (probe - prior) / (perfect - prior): a cut at which they exceed what is allowed cannot pass.
    ``ssim_lower`` (images with sides of at least 7): the prior is the mean of the fitted items.
    ``reidentification_lower``: each held-out item is looked for among all ``gallery`` items, the prior is 1 / gallery.
    That one is a bound for a gallery of that size only: among more items re-identification is harder.
    """
    count = min(budget.screen_items, len(view.inputs))
    if view.kind == "token" or count < _MIN_ITEMS:
        return None
    fitted = count * 3 // 4
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
    raw |= _lower_bounds(view.kind, guessed, mean, view.inputs[:count], seed=seed)
    return ScreenScore(score=raw["psnr"] - raw["psnr_mean"], raw=raw)


def pick(scores: Sequence[ScreenScore]) -> int | None:
    """Return where the gain has reached its plateau."""
    return plateau([entry.score for entry in scores])


def _lower_bounds(
    kind: str, guessed: np.ndarray, mean: np.ndarray, inputs: np.ndarray, *, seed: int
) -> dict[str, float]:
    """Return the lower bounds of the probe's leakage; ``guessed`` (queries, width) are of the last of ``inputs``."""
    queries = inputs[-len(guessed) :]
    # Queries first: a reconstruction belongs to the gallery's item of its own place.
    gallery = np.concatenate([queries, inputs[: -len(guessed)]])
    answers = guessed.reshape(queries.shape)
    hits = Scores(reidentified(answers, gallery), perfect=1.0)
    chance = Scores(np.full(len(queries), 1 / len(gallery)), perfect=1.0)
    found = {
        "reidentification_lower": estimate(hits, chance, "reidentification", seed=seed).lower,
        "gallery": float(len(gallery)),
    }
    if has_ssim(inputs.shape[1:], kind):
        likeness = Scores(ssim_per_item(answers, queries), perfect=1.0)
        blind = np.broadcast_to(mean.reshape(queries.shape[1:]), queries.shape)
        prior = Scores(ssim_per_item(blind, queries), perfect=1.0)
        found["ssim_lower"] = estimate(likeness, prior, "ssim", seed=seed).lower
    return {name: value for name, value in found.items() if value is not None}


SCREEN = Screen(
    title="Ridge probe (PSNR over the mean input)",
    source="Hoerl and Kennard 1970, as a probe of what is linearly readable",
    cost="a few tenths of a second at a cut: one small linear system, and its answers measured",
    score=score,
    pick=pick,
)
