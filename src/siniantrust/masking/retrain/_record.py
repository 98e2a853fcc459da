"""What a training leaves to read: its curves, and what it began and ended with."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from siniantrust._files import write_atomic

FORMAT = "siniantrust.training/1"


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training items.

    Attributes:
        epoch: its number, from 1.
        training_loss: mean over its steps, penalty included.
        validation_loss: on the validation items afterwards, penalty included.
        penalty: the penalty's share of the validation loss.
        validation_accuracy: share of right labels; None without labels.
        learning_rate: of its last step.
        time_s: how long it took.
    """

    epoch: int
    training_loss: float
    validation_loss: float
    penalty: float
    validation_accuracy: float | None
    learning_rate: float
    time_s: float


@dataclass(frozen=True, slots=True)
class Training:
    """A training as a record, ``training.json``.

    Attributes:
        model_sha256: of the model that was given.
        retrained_sha256: of the model that came out, as plans and audits of it have it.
        tensors: what crosses the cut.
        mode: which parts were trained.
        teacher_sha256: of the model whose answers were learnt; None if labels were.
        training_items: items that were learnt from.
        validation_items: items by which training ended.
        heldout_items: items that accuracy is of.
        features_kept: whether Part 1 was computed once for all epochs.
        best_epoch: the epoch whose weights were taken; 0 for those that were given.
        accuracy_before: share of right labels among held-out items before training; None without labels.
        accuracy_after: the same after it.
        accuracy_teacher: the same of the teacher; None without one.
        agreement: share of held-out items that the model after training and the teacher name alike; None without a
            teacher, or where its answers are no classes.
        epochs: the curves.
    """

    model_sha256: str
    retrained_sha256: str
    tensors: tuple[str, ...]
    mode: str
    teacher_sha256: str | None
    training_items: int
    validation_items: int
    heldout_items: int
    features_kept: bool
    best_epoch: int
    accuracy_before: float | None
    accuracy_after: float | None
    accuracy_teacher: float | None
    agreement: float | None
    epochs: tuple[Epoch, ...]

    def described(self) -> dict[str, Any]:
        """Return the record as JSON holds it."""
        return {"format": FORMAT, **asdict(self)}


def write_training(training: Training, path: Path) -> None:
    """Write ``training`` as JSON.

    Raises:
        OSError: if it cannot be written.
    """
    write_atomic(path, (json.dumps(training.described(), indent=1, allow_nan=False) + "\n").encode())
