"""Signs that a model or its data are broken, so that figures about them mean nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from siniantrust.errors import AuditError

_CHUNK_ITEMS = 256


def require_answers(outputs: np.ndarray, name: str) -> None:
    """Refuse a model of whose answers (N, ...) none is finite.

    Raises:
        AuditError: naming the output.
    """
    if not np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1).any():
        raise AuditError(f"model output '{name}' is not finite for any of {len(outputs)} items")


def doubt_of(tensors: Sequence[str], stores: Mapping[str, np.ndarray], outputs: np.ndarray) -> str | None:
    """Return why the figures of the cut at ``tensors`` cannot be trusted, or None.

    ``stores`` hold the features (N, ...) by tensor and ``outputs`` (N, ...) are the model's.
    """
    broken = f"the same for all {len(outputs)} items: the model or the data may be broken, and no figure says otherwise"
    if all(_constant(stores[name]) for name in tensors):
        return f"what crosses here ('{tensors[0]}') is {broken}"
    if _constant(outputs):
        return f"the model's answer is {broken}"
    return None


def _constant(values: np.ndarray) -> bool:
    """Return whether all rows (N, ...) are equal; as soon as one differs the rest is not read."""
    return all(
        bool((values[start : start + _CHUNK_ITEMS] == values[:1]).all())
        for start in range(0, len(values), _CHUNK_ITEMS)
    )
