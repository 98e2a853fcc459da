"""Features as a few whitened numbers per item: principal components of the Gram matrix, at unit variance."""

from __future__ import annotations

import torch

from siniantrust.leakage.attacks._kernel import Gram

# An eigendecomposition of more items costs more than it tells.
_BASIS_ITEMS = 800
_LEAST_VARIANCE = 1e-6


def coordinates(gram: Gram, count: int) -> torch.Tensor:
    """Return all items' (attacker, validation, held-out) whitened coordinates, (items, at most ``count``).

    The components are those of the first attacker's items; the others are projected onto them (Nyström).
    """
    basis = min(_BASIS_ITEMS, gram.attackers)
    values, vectors = torch.linalg.eigh(gram.products[:basis, :basis])
    kept = int((values > _LEAST_VARIANCE * values[-1].clamp_min(1e-12)).sum())
    kept = max(1, min(count, kept))
    values, vectors = values[-kept:].clamp_min(1e-12), vectors[:, -kept:]
    found: torch.Tensor = gram.products[:, :basis] @ (vectors / values) * basis**0.5
    return found
