"""KL divergence between the distribution of a feature map's intensities and the input's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._plateau import plateau
from siniantrust.leakage._registry import Screen, ScreenScore, ScreenView
from siniantrust.leakage.screens._maps import feature_maps, normalised

BINS = 32
# Added to every bin's count, so that an empty bin does not make the divergence infinite (Laplace).
_SMOOTHING = 0.5
_MAX_CHANNELS = 128
_CHUNK_ITEMS = 32


def score(view: ScreenView, budget: Budget, seed: int) -> ScreenScore | None:
    """Return exp(-KL) of the channel nearest to the input; raw: ``kl_min``, ``kl_mean``, ``kl_max`` in nats.

    For each item the intensities of its input and of each channel are stretched to 0..1 and counted in 32 bins;
    KL(input || channel) is averaged over items, and the layer's figure is the minimum over channels, since one
    telling channel is enough. Of an input's own channels (colours) the nearest counts. None for tokens, whose numbers
    are no intensities.
    """
    del seed
    if view.kind == "token":
        return None
    count = min(budget.screen_items, len(view.inputs))
    sums: np.ndarray | float = 0.0
    for start in range(0, count, _CHUNK_ITEMS):
        rows = slice(start, min(start + _CHUNK_ITEMS, count))
        inputs = view.inputs[rows]
        colours = inputs if view.kind == "image" else inputs.reshape(len(inputs), 1, 1, -1)
        reference = _histograms(normalised(colours))[:, :, None]
        maps = _histograms(normalised(feature_maps(view.features, rows, _MAX_CHANNELS)))[:, None]
        sums = sums + (reference * np.log(reference / maps)).sum(axis=(0, 3))
    divergences = (np.asarray(sums) / count).min(axis=0)
    raw = {
        "kl_min": float(divergences.min()),
        "kl_mean": float(divergences.mean()),
        "kl_max": float(divergences.max()),
    }
    return ScreenScore(score=math.exp(-raw["kl_min"]), raw=raw)


def pick(scores: Sequence[ScreenScore]) -> int | None:
    """Return where the similarity exp(-KL) has reached its plateau."""
    return plateau([entry.score for entry in scores])


def _histograms(maps: np.ndarray) -> np.ndarray:
    """Return the smoothed shares of each bin, (items, channels, bins), for maps in 0..1."""
    items, channels = maps.shape[:2]
    flat = maps.reshape(items * channels, -1)
    bins = np.minimum((flat * BINS).astype(np.int64), BINS - 1)
    offsets = np.arange(len(flat))[:, None] * BINS
    counts = np.bincount((bins + offsets).ravel(), minlength=len(flat) * BINS).reshape(items, channels, BINS)
    shares = counts + _SMOOTHING
    normal: np.ndarray = shares / shares.sum(axis=2, keepdims=True)
    return normal


SCREEN = Screen(
    title="KL divergence of distributions (feature map against input)",
    source="SinianTrust talk (Alibaba Cloud, ODLA.trust); divergence: Kullback and Leibler 1951",
    cost="a tenth of a second at a cut: histograms",
    score=score,
    pick=pick,
)
