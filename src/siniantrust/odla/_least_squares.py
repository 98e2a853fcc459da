"""Least squares with coefficients that may not be negative: no byte and no operation takes less than no time."""

from __future__ import annotations

import numpy as np

_ROUNDING = 1e-10


def fit_non_negative(rows: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Find the coefficients of at least 0 with which ``rows`` come nearest to ``seconds``, relative to each of them.

    The active-set method of Lawson and Hanson (Solving Least Squares Problems, 1974, chapter 23).

    Args:
        rows: features (measurements, features), none negative; columns may differ in size by many orders.
        seconds: what was measured (measurements,), positive.

    Returns:
        The coefficients (features,).
    """
    weighted = rows / seconds[:, None]
    norms = np.linalg.norm(weighted, axis=0)
    scaled = weighted / np.where(norms > 0, norms, 1.0)
    target = np.ones(len(seconds))
    found = np.zeros(scaled.shape[1])
    free = np.zeros(scaled.shape[1], dtype=bool)
    # Each turn frees one coefficient; a coefficient that comes back at once would turn for ever.
    for _ in range(3 * scaled.shape[1]):
        slope = np.where(free, -np.inf, scaled.T @ (target - scaled @ found))
        if not len(slope) or slope.max() <= _ROUNDING:
            break
        free[slope.argmax()] = True
        found = _step(scaled, target, found, free)
    coefficients: np.ndarray = found / np.where(norms > 0, norms, 1.0)
    return coefficients


def _step(scaled: np.ndarray, target: np.ndarray, found: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Solve for the free coefficients, holding at 0 (in ``free``, too) each that would fall below."""
    while free.any():
        solved = np.zeros_like(found)
        solved[free] = np.linalg.lstsq(scaled[:, free], target, rcond=None)[0]
        below = free & (solved <= 0)
        if not below.any():
            return solved
        share = np.min(found[below] / np.maximum(found[below] - solved[below], _ROUNDING))
        found = found + share * (solved - found)
        free &= found > _ROUNDING
        found = np.where(free, found, 0.0)
    return np.zeros_like(found)
