"""Detection of a cloud that trains something else: its gradients do not tell the classes apart.

A cloud that trains the edge's own task sends back gradients that are alike for items of one class and unlike for items
of different ones. A hijacking cloud (FSHA: Pasquini, Ateniese and Bernaschi 2021) pulls all features towards a space of
its own, whatever the class. The check needs the edge's labels only, and sends nothing for its own sake (Fu et al. 2023,
"Focusing on Pinocchio's Nose"). It is measured against a cloud whose networks start untrained. One that starts warm,
with networks trained beforehand on items like the edge's, or that mixes honest gradients in, may pass.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from siniantrust.collab._errors import HijackError

WINDOW = 20
LEAST_GAP = 0.1


def similarity_gap(gradients: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the mean cosine similarity of gradients within classes, less that between classes.

    Args:
        gradients: (items, ...), one for each item.
        labels: (items,).

    Returns:
        The gap, or None where no two items are of one class, or no two of different ones.
    """
    rows = gradients.reshape(len(gradients), -1).astype(np.float64)
    norms = np.linalg.norm(rows, axis=1)
    rows, labels = rows[norms > 0] / norms[norms > 0, None], labels[norms > 0]
    alike = rows @ rows.T
    same = labels[:, None] == labels[None, :]
    different = ~same
    np.fill_diagonal(same, val=False)
    if not same.any() or not different.any():
        return None
    return float(alike[same].mean() - alike[different].mean())


class HijackDetector:
    """Watches the gradients of an edge's own items over the last ``WINDOW`` steps that allow a comparison."""

    def __init__(self) -> None:
        self._gaps: deque[float] = deque(maxlen=WINDOW)

    @property
    def gap(self) -> float | None:
        """The mean gap over the window, once it is full."""
        return float(np.mean(self._gaps)) if len(self._gaps) == WINDOW else None

    def observe(self, gradients: np.ndarray, labels: np.ndarray, *, step: int) -> None:
        """Take a step's gradients.

        Raises:
            HijackError: if they do not tell the classes apart.
        """
        gap = similarity_gap(gradients, labels)
        if gap is not None:
            self._gaps.append(gap)
        if self.gap is not None and self.gap < LEAST_GAP:
            raise HijackError(
                f"step {step}: the cloud's gradients do not tell classes apart (similarity within less that between "
                f"classes: {self.gap:.3f} over {WINDOW} steps, expected at least {LEAST_GAP}): it trains something "
                "else than the task, and could invert what it gets; nothing more is sent"
            )
