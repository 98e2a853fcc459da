"""Distance correlation between features and inputs: zero only if the two are independent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._plateau import plateau
from siniantrust.leakage._products import products
from siniantrust.leakage._registry import Screen, ScreenScore, ScreenView

_MIN_ITEMS = 4


def score(view: ScreenView, budget: Budget, seed: int) -> ScreenScore:
    """Return the bias-corrected distance correlation; raw: that (``dcor_unbiased``) and the plain one (``dcor``).

    The plain statistic tends to 1 in high dimension even for independent data; the corrected one (Székely and Rizzo
    2013) is near 0 there, and may be slightly negative.
    """
    del seed
    count = min(budget.screen_items, len(view.inputs))
    features = _distances(view.features.flat(slice(0, count)))
    inputs = _distances(view.inputs[:count].reshape(count, -1))
    raw = {
        "dcor": _correlation(_centred(features), _centred(inputs)) ** 0.5,
        "dcor_unbiased": _correlation(_u_centred(features), _u_centred(inputs)) if count >= _MIN_ITEMS else 0.0,
    }
    return ScreenScore(score=raw["dcor_unbiased"], raw=raw)


def pick(scores: Sequence[ScreenScore]) -> int | None:
    """Return where the correlation has reached its plateau."""
    return plateau([entry.score for entry in scores])


def _distances(rows: np.ndarray) -> np.ndarray:
    # Around the mean, inner products lose least to rounding.
    rows = rows - rows.mean(axis=0)
    inner = products(rows, rows).astype(np.float64)
    norms = np.diag(inner)
    squared = np.maximum(norms[:, None] + norms[None, :] - 2 * inner, 0)
    np.fill_diagonal(squared, 0)
    result: np.ndarray = np.sqrt(squared)
    return result


def _centred(distances: np.ndarray) -> np.ndarray:
    result: np.ndarray = (
        distances - distances.mean(axis=0, keepdims=True) - distances.mean(axis=1, keepdims=True) + distances.mean()
    )
    return result


def _u_centred(distances: np.ndarray) -> np.ndarray:
    count = len(distances)
    result: np.ndarray = (
        distances
        - distances.sum(axis=0, keepdims=True) / (count - 2)
        - distances.sum(axis=1, keepdims=True) / (count - 2)
        + distances.sum() / ((count - 1) * (count - 2))
    )
    np.fill_diagonal(result, 0)
    return result


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return the squared distance correlation of two centred matrices; 0 where one of them is constant."""
    scale = float((first * first).sum() * (second * second).sum())
    if scale <= 0:
        return 0.0
    return float((first * second).sum() / np.sqrt(scale))


SCREEN = Screen(
    title="Distance correlation",
    source="Székely, Rizzo and Bakirov 2007; bias-corrected Székely and Rizzo 2013",
    score=score,
    pick=pick,
)
