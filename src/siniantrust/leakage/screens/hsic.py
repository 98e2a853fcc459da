"""The Hilbert-Schmidt independence criterion between features and inputs, with Gaussian kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._plateau import plateau
from siniantrust.leakage._registry import Screen, ScreenScore, ScreenView
from siniantrust.leakage.screens._pairwise import MIN_ITEMS, correlation, squared_distances, u_centred


def score(view: ScreenView, budget: Budget, seed: int) -> ScreenScore | None:
    """Return the normalised criterion, 1 for the input itself and about 0 for independent features.

    HSIC = ||C_xz||², the squared Hilbert-Schmidt norm of the cross-covariance operator of two kernels (Gretton et al.
    2005). Kernels are exp(-||a - b||² / (2 w²)), w the median distance of the items. Of the estimators the unbiased one
    is taken (Song et al. 2012): with the kernels' diagonals set to 0 and both u-centred to K and L,
    HSIC = <K, L> / (n (n - 3)). The score is HSIC(x, z) / sqrt(HSIC(x, x) HSIC(z, z)), which kernel alignment is too
    (Cortes et al. 2012; for networks Kornblith et al. 2019, CKA); it may be slightly negative. Raw: ``nhsic``, the
    score; ``hsic``, before it is normalised. None for tokens, and for fewer than four items.
    """
    del seed
    count = min(budget.screen_items, len(view.inputs))
    if view.kind == "token" or count < MIN_ITEMS:
        return None
    features = u_centred(_kernel(squared_distances(view.features.flat(slice(0, count)))))
    inputs = u_centred(_kernel(squared_distances(view.inputs[:count].reshape(count, -1))))
    raw = {
        "nhsic": correlation(features, inputs),
        "hsic": float((features * inputs).sum()) / (count * (count - 3)),
    }
    return ScreenScore(score=raw["nhsic"], raw=raw)


def pick(scores: Sequence[ScreenScore]) -> int | None:
    """Return where the criterion has reached its plateau."""
    return plateau([entry.score for entry in scores])


def _kernel(squared: np.ndarray) -> np.ndarray:
    """Return the Gaussian kernel of squared distances, its diagonal 0; of items that are all alike, zeros."""
    apart = squared[squared > 0]
    if not apart.size:
        return np.zeros_like(squared)
    kernel: np.ndarray = np.exp(-squared / (2 * np.median(apart)))
    np.fill_diagonal(kernel, 0)
    return kernel


SCREEN = Screen(
    title="HSIC (normalised, Gaussian kernels)",
    source="Gretton, Bousquet, Smola and Schölkopf, ALT 2005; unbiased: Song et al., JMLR 13, 2012",
    cost="a tenth of a second at a cut: pairwise distances of a few hundred items",
    score=score,
    pick=pick,
)
