"""Statistics of pairs of items: distances, their unbiased centring, and the correlation of two such matrices."""

from __future__ import annotations

import numpy as np

from siniantrust.leakage._products import products

MIN_ITEMS = 4
"""Fewest items of which the unbiased statistics are defined."""


def squared_distances(rows: np.ndarray) -> np.ndarray:
    """Return the squared Euclidean distance of every two of the rows (N, width): float64 (N, N), zero diagonal."""
    # Around the mean, inner products lose least to rounding.
    rows = rows - rows.mean(axis=0)
    inner = products(rows, rows).astype(np.float64)
    norms = np.diag(inner)
    squared: np.ndarray = np.maximum(norms[:, None] + norms[None, :] - 2 * inner, 0)
    np.fill_diagonal(squared, 0)
    return squared


def u_centred(pairs: np.ndarray) -> np.ndarray:
    """Return ``pairs`` (N, N), symmetric with a zero diagonal, centred as the unbiased statistics need it.

    With P the pairs, P_ij - sum_k P_ik / (N-2) - sum_k P_kj / (N-2) + sum_kl P_kl / ((N-1)(N-2)) off the diagonal and
    0 on it (Székely and Rizzo 2014, Partial distance correlation). N is at least ``MIN_ITEMS``.
    """
    count = len(pairs)
    result: np.ndarray = (
        pairs
        - pairs.sum(axis=0, keepdims=True) / (count - 2)
        - pairs.sum(axis=1, keepdims=True) / (count - 2)
        + pairs.sum() / ((count - 1) * (count - 2))
    )
    np.fill_diagonal(result, 0)
    return result


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return <first, second> / sqrt(<first, first> <second, second>) of two centred matrices; 0 if one is constant."""
    scale = float((first * first).sum() * (second * second).sum())
    if scale <= 0:
        return 0.0
    return float((first * second).sum() / np.sqrt(scale))
