"""An edge's own items: inputs and labels in one .npz file, and the rows of each step."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from siniantrust.collab._task import Task
from siniantrust.collab._trained_part import seed_of
from siniantrust.errors import DataError


@dataclass(frozen=True)
class Items:
    """Items to train with and items to test with; none of these may be there."""

    inputs: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    heldout_inputs: np.ndarray = field(repr=False)
    heldout_labels: np.ndarray = field(repr=False)


def load_items(path: Path, task: Task) -> Items:
    """Read ``inputs``, ``labels`` and, if it is there, ``heldout``.

    Raises:
        DataError: if the file cannot be read, or does not fit the network.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files}
    # A .npy file is no context manager, which is a TypeError; NumPy takes a dtype such as ",f4" for Python.
    except (OSError, ValueError, EOFError, TypeError, SyntaxError, BadZipFile) as fault:
        raise DataError(f"data {path}: cannot be read as .npz ({fault})") from None
    if missing := {"inputs", "labels"} - found.keys():
        raise DataError(f"data {path}: '{min(missing)}' is missing")
    inputs, labels = found["inputs"], found["labels"]
    heldout = found.get("heldout", np.zeros(len(labels), dtype=bool))
    tensor = task.model.inputs[0]
    if inputs.dtype.name != tensor.dtype or not tensor.fits(inputs.shape):
        raise DataError(
            f"data {path}: the network takes {tensor.dtype} of shape (items, {tensor.shape[1:]}), "
            f"found {inputs.dtype} of shape {inputs.shape}"
        )
    if inputs.dtype.kind == "f" and not np.isfinite(inputs).all():
        raise DataError(f"data {path}: inputs hold NaN or infinity")
    if labels.shape != (len(inputs),) or labels.dtype.kind not in "iu" or heldout.shape != labels.shape:
        raise DataError(
            f"data {path}: expected one whole number and one held-out flag for each of {len(inputs)} inputs"
        )
    if not 0 <= labels.min() <= labels.max() < task.classes:
        raise DataError(f"data {path}: labels must be 0 to {task.classes - 1}")
    labels, heldout = labels.astype(np.int64), heldout.astype(bool)
    if heldout.all():
        raise DataError(f"data {path}: every item is held out; there is none to train with")
    return Items(inputs[~heldout], labels[~heldout], inputs[heldout], labels[heldout])


def steps_per_epoch(items: int, batch: int) -> int:
    """Return the steps in which every row comes once at most."""
    return max(1, items // batch)


def rows_of_step(items: int, batch: int, step: int, *, seed: int, name: str) -> np.ndarray:
    """Return the rows of step ``step`` (from 1): each epoch takes every row once, but for those that fill no batch."""
    epoch, place = divmod(step - 1, steps_per_epoch(items, batch))
    return _order(items, seed_of(seed, name, epoch))[place * batch : (place + 1) * batch]


@lru_cache(maxsize=8)
def _order(items: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(items)
