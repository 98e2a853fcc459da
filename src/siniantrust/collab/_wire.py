"""Tensors in messages, read with suspicion."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from siniantrust.collab._errors import RefusedError
from siniantrust.graph import Tensor

LABELS = "labels"
_LABEL = Tensor(LABELS, "int64", (1,), 0)


def label_tensor() -> Tensor:
    """Return what labels look like: int64 (N,)."""
    return _LABEL


def to_messages(arrays: Mapping[str, np.ndarray], into: Any) -> None:
    """Append arrays to a repeated field of tensors."""
    for name, array in arrays.items():
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
        into.add(name=name, dtype=array.dtype.name, shape=array.shape, data=data.tobytes())


def from_messages(messages: Iterable[Any], expected: Sequence[Tensor], *, origin: str) -> dict[str, np.ndarray]:
    """Return exactly the tensors that are expected, all with one number of items.

    Args:
        messages: what came.
        expected: names, dtypes and shapes, of any number of items where there is a batch axis.
        origin: who sent it, for errors.

    Raises:
        RefusedError: if a tensor is missing, surplus, of another dtype or shape, not whole, or not finite.
    """
    found: dict[str, np.ndarray] = {}
    given = {message.name: message for message in messages}
    known = {tensor.name: tensor for tensor in expected}
    if odd := sorted(given.keys() ^ known.keys()):
        what = "is not expected" if odd[0] in given else "is missing"
        raise RefusedError(f"{origin}: tensor '{odd[0][:80]}' {what}")
    items: set[int] = set()
    for name, tensor in known.items():
        found[name] = _array(given[name], tensor, origin=f"{origin}: tensor '{name}'")
        if tensor.batch_axis is not None:
            items.add(found[name].shape[tensor.batch_axis] // max(tensor.shape[tensor.batch_axis], 1))
    if len(items) > 1:
        raise RefusedError(f"{origin}: its tensors have different numbers of items: {sorted(items)}")
    return found


def from_own(messages: Iterable[Any]) -> dict[str, np.ndarray]:
    """Return the tensors of messages that were checked before they were kept; they cannot be written to."""
    return {
        message.name: np.frombuffer(message.data, np.dtype(message.dtype).newbyteorder("<")).reshape(message.shape)
        for message in messages
    }


def _array(message: Any, tensor: Tensor, *, origin: str) -> np.ndarray:
    if message.dtype != tensor.dtype:
        raise RefusedError(f"{origin}: expected {tensor.dtype}, found {message.dtype[:20]!r}")
    shape = tuple(message.shape)
    if not tensor.fits(shape):
        wanted = tuple("items" if axis == tensor.batch_axis else size for axis, size in enumerate(tensor.shape))
        raise RefusedError(f"{origin}: expected the shape {wanted}, found {shape[:8]}")
    size = math.prod(shape) * np.dtype(tensor.dtype).itemsize
    # Each reading of the field copies it.
    data = message.data
    if len(data) != size:
        raise RefusedError(f"{origin}: {len(data)} bytes are not those of the shape {shape}")
    array = np.frombuffer(data, np.dtype(tensor.dtype).newbyteorder("<")).reshape(shape).astype(tensor.dtype)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise RefusedError(f"{origin}: it holds NaN or infinity")
    return array


def check_labels(labels: np.ndarray, classes: int, *, origin: str) -> None:
    """Refuse labels that are no classes.

    Raises:
        RefusedError: if one is below 0 or not below ``classes``.
    """
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        raise RefusedError(f"{origin}: labels must be 0 to {classes - 1}, found {labels.min()} to {labels.max()}")
