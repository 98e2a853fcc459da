"""Labels from gradients: what a cloud that holds the middle learns from what an edge with Part 3 sends back.

Source: Li, Sun, Gao, Zhang, Yang, Yao, Xie and Wang, "Label Leakage and Protection in Two-party Split Learning",
ICLR 2022: the norm attack, and the direction attack, here for any number of classes.
"""

from __future__ import annotations

import numpy as np


def norm_scores(gradients: np.ndarray) -> np.ndarray:
    """Return each item's score for being of the rare class: the norm of its gradient.

    Args:
        gradients: (items, ...), one for each item.
    """
    return np.asarray(np.linalg.norm(gradients.reshape(len(gradients), -1), axis=1))


def direction_labels(gradients: np.ndarray, known: np.ndarray, known_labels: np.ndarray) -> np.ndarray:
    """Return the label of the known gradients whose mean direction is nearest to each item's, by the cosine.

    Args:
        gradients: (items, ...), one for each item.
        known: (items, ...), gradients of a few items of every class whose labels the cloud knows.
        known_labels: (items,).
    """
    classes = np.unique(known_labels)
    directions = _unit(known)
    means = _unit(np.stack([directions[known_labels == each].mean(0) for each in classes]))
    return np.asarray(classes[(_unit(gradients) @ means.T).argmax(1)])


def area_under_curve(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the chance that a positive item scores above another one; a half says that scores say nothing."""
    above = scores[positive][:, None] - scores[~positive][None, :]
    return float((above > 0).mean() + (above == 0).mean() / 2)


def _unit(rows: np.ndarray) -> np.ndarray:
    flat = rows.reshape(len(rows), -1)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12))
