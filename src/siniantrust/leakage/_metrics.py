"""How good a reconstruction is, item by item."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from siniantrust.leakage._products import products

Metric = Literal["ssim", "nmse", "reidentification", "token", "attribute", "character", "word"]
"""What leakage is counted in: structure, squared error, identity, tokens, a private label, or text."""
MIN_SSIM_SIDE = 7
_TIE = 1e-5
_FLAT = 1e-6
_CHUNK_ITEMS = 256


@dataclass(frozen=True, slots=True)
class Scores:
    """One metric of one reconstruction: a value per item, and the value that a perfect reconstruction has."""

    values: np.ndarray = field(repr=False)
    perfect: float

    def first(self, count: int) -> Scores:
        """Return the scores of the first ``count`` items."""
        return Scores(self.values[:count], self.perfect)


def has_ssim(shape: tuple[int, ...], kind: str) -> bool:
    """Return whether SSIM is defined: images at least 7 pixels high and wide."""
    return kind == "image" and min(shape[1:]) >= MIN_SSIM_SIDE


def measure(reconstructed: np.ndarray, originals: np.ndarray, kind: str) -> dict[Metric, Scores]:
    """Score reconstructions (n, *shape) against the first n of the originals (N, *shape), both in unit scale.

    ``ssim`` (images): structural similarity with a data range of 1. ``nmse``: the mean squared error, which becomes
    normalised when the prior is corrected for. ``token`` (tokens, instead of these): the share of an item's tokens that
    are right, which is 1 - the token error rate without insertions. ``reidentification``: 1 where an item's
    reconstruction lies nearer to its own original than to any other in the gallery of all N originals.
    """
    own = originals[: len(reconstructed)]
    scores: dict[Metric, Scores] = {}
    if kind == "token":
        right = (reconstructed == own).reshape(len(own), -1)
        scores["token"] = Scores(right.mean(axis=1), perfect=1.0)
        scores["reidentification"] = Scores(_reidentified_tokens(reconstructed, originals), perfect=1.0)
        return scores
    if has_ssim(originals.shape[1:], kind):
        scores["ssim"] = Scores(ssim_per_item(reconstructed, own), perfect=1.0)
    error = (reconstructed.astype(np.float64) - own.astype(np.float64)).reshape(len(own), -1)
    scores["nmse"] = Scores((error**2).mean(axis=1), perfect=0.0)
    scores["reidentification"] = Scores(reidentified(reconstructed, originals), perfect=1.0)
    return scores


def ssim_per_item(reconstructed: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """Return the structural similarity of each pair, (N,), in double precision; data range 1."""
    import torch

    from siniantrust.leakage._similarity import ssim

    values = np.empty(len(originals))
    for start in range(0, len(originals), _CHUNK_ITEMS):
        rows = slice(start, start + _CHUNK_ITEMS)
        first, second = (torch.tensor(images[rows], dtype=torch.float64) for images in (reconstructed, originals))
        values[rows] = ssim(first, second).numpy()
    return values


def psnr(reconstructed: np.ndarray, originals: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in decibels for a data range of 1, of the mean squared error of all."""
    error = float(np.mean((reconstructed.astype(np.float64) - originals.astype(np.float64)) ** 2))
    return float(-10 * np.log10(max(error, 1e-12)))


def reidentified(reconstructed: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """Return for each of n items 1 if its own original is nearest of N (L2 after standardising each item), else 0.

    Originals that are equally near share the hit: a reconstruction that says nothing scores 1 / N, the prior.
    """
    queries, gallery = _standardised(reconstructed), _standardised(originals)
    width = queries.shape[1]
    distances = (
        (queries**2).sum(axis=1)[:, None] + (gallery**2).sum(axis=1)[None, :] - 2 * products(queries, gallery)
    ) / width
    return _hits(distances)


def identified(answers: np.ndarray, places: np.ndarray, *, cosine: bool) -> np.ndarray:
    """Return for each of N answers (N, k) 1 if its own place (N, k) is nearest of all, by distance or angle, else 0."""
    if cosine:
        answers, places = (
            each / np.maximum(np.linalg.norm(each, axis=1)[:, None], 1e-12) for each in (answers, places)
        )
    distances = (answers**2).sum(axis=1)[:, None] + (places**2).sum(axis=1)[None, :] - 2 * products(answers, places)
    return _hits(distances / max(float(distances.mean()), 1e-12))


def _reidentified_tokens(reconstructed: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """Return the same for tokens, nearest by the number of positions that differ."""
    gallery = originals.reshape(len(originals), -1)
    differing = [(row.reshape(1, -1) != gallery).sum(axis=1) for row in reconstructed]
    return _hits(np.asarray(differing, dtype=np.float64))


def _hits(distances: np.ndarray) -> np.ndarray:
    own = np.diag(distances)[:, None]
    nearest = distances.min(axis=1, keepdims=True)
    ties = (distances <= nearest + _TIE).sum(axis=1)
    return np.where((own <= nearest + _TIE)[:, 0], 1.0 / ties, 0.0)


def _standardised(items: np.ndarray) -> np.ndarray:
    flat = items.reshape(len(items), -1).astype(np.float32)
    centred = flat - flat.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, keepdims=True)
    # A flat item has no pattern to compare: it stays all zeros, equally far from every other.
    return np.where(spread > _FLAT, centred / np.maximum(spread, _FLAT), 0.0)
