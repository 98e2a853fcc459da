"""Distance correlation between features and inputs: zero only if the two are independent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._plateau import plateau
from siniantrust.leakage._registry import Screen, ScreenScore, ScreenView
from siniantrust.leakage.screens._pairwise import MIN_ITEMS, correlation, squared_distances, u_centred


def score(view: ScreenView, budget: Budget, seed: int) -> ScreenScore | None:
    """Return the bias-corrected distance correlation; raw: that (``dcor_unbiased``) and the plain one (``dcor``).

    The plain statistic tends to 1 in high dimension even for independent data; the corrected one (Székely and Rizzo
    2013) is near 0 there, and may be slightly negative. None for tokens, whose numbers have no distance.
    """
    del seed
    if view.kind == "token":
        return None
    count = min(budget.screen_items, len(view.inputs))
    features = np.sqrt(squared_distances(view.features.flat(slice(0, count))))
    inputs = np.sqrt(squared_distances(view.inputs[:count].reshape(count, -1)))
    raw = {
        "dcor": correlation(_centred(features), _centred(inputs)) ** 0.5,
        "dcor_unbiased": correlation(u_centred(features), u_centred(inputs)) if count >= MIN_ITEMS else 0.0,
    }
    return ScreenScore(score=raw["dcor_unbiased"], raw=raw)


def pick(scores: Sequence[ScreenScore]) -> int | None:
    """Return where the correlation has reached its plateau."""
    return plateau([entry.score for entry in scores])


def _centred(distances: np.ndarray) -> np.ndarray:
    result: np.ndarray = (
        distances - distances.mean(axis=0, keepdims=True) - distances.mean(axis=1, keepdims=True) + distances.mean()
    )
    return result


SCREEN = Screen(
    title="Distance correlation",
    source="Székely, Rizzo and Bakirov 2007; bias-corrected Székely and Rizzo 2013",
    cost="a tenth of a second at a cut: pairwise distances of a few hundred items",
    score=score,
    pick=pick,
)
