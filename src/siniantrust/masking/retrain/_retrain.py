"""Re-training as a whole: a model and data in, the same model with other numbers and its curves out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from siniantrust._extras import require
from siniantrust._progress import progress
from siniantrust.graph import Cut, Model, digest
from siniantrust.leakage import Data
from siniantrust.masking.retrain._penalty import Penalty
from siniantrust.masking.retrain._recipe import Recipe, RetrainError
from siniantrust.masking.retrain._record import Epoch, Training

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Retrained:
    """A model after training, and the record of it."""

    proto: onnx.ModelProto = field(repr=False)
    training: Training


def retrain(
    model: Model,
    data: Data,
    *,
    cut: Cut,
    recipe: Recipe,
    teacher: Model | None = None,
    penalty: Penalty | None = None,
    checkpoint: Path | None = None,
    watch: Callable[[Epoch], None] = lambda _: None,
) -> Retrained:
    """Train ``model`` and return it: the same nodes and names, other numbers.

    Masks that are nodes of the model act in training as they do in use; noise is drawn anew for each batch. The loss is
    the cross-entropy of the model's first output, or with a teacher the distance to its answers, for which no labels
    are needed. The weights of the epoch with the least validation loss are taken, or with a penalty that learns itself
    those of the last one. One seed gives one result on one device and number of threads, also where a training was
    interrupted and started again with its checkpoint.

    Args:
        model: The model, with its mask if it has one.
        data: As for an audit; its held-out items are only looked at for the accuracy in the record.
        cut: What crosses between the parts: behind the mask.
        recipe: How to train.
        teacher: A model of the same inputs and outputs whose answers are to be learnt: the one without a mask, say.
        penalty: What is added to the loss; it needs the mode ``joint``, since it acts on Part 1.
        checkpoint: A file to keep the state in, at the end of each epoch and once a minute; if it is there, training
            goes on from it. It is deleted in the end.
        watch: Called with each epoch's figures; what it raises ends the training.

    Raises:
        RetrainError: if the model or the data cannot be trained with, the loss is not finite, or the checkpoint is
            damaged, of another run, or cannot be written.
        DeviceError: if PyTorch cannot run or train an operator of the model; all are named.
        MissingExtraError: if torch is not installed.
    """
    torch = require("torch", extra="leakage")
    if penalty is not None and recipe.mode != "joint":
        raise RetrainError("a penalty acts on Part 1, which the mode 'part2' does not change; use the mode 'joint'")
    if teacher is not None:
        _require_alike(model, teacher)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cards = list(range(torch.cuda.device_count())) if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cards):
        return _train(model, data, cut, recipe, teacher, penalty, checkpoint=checkpoint, watch=watch, device=device)


def _train(
    model: Model,
    data: Data,
    cut: Cut,
    recipe: Recipe,
    teacher: Model | None,
    penalty: Penalty | None,
    *,
    checkpoint: Path | None,
    watch: Callable[[Epoch], None],
    device: torch.device,
) -> Retrained:
    from siniantrust.masking.retrain._items import make_items
    from siniantrust.masking.retrain._loop import Loop
    from siniantrust.masking.retrain._network import Network
    from siniantrust.masking.retrain._teacher import accuracy_of, agreement_of, taught_by

    items = make_items(data, model, seed=recipe.seed)
    network = Network(model, cut, recipe.mode, device)
    taught = None if teacher is None else taught_by(teacher, items, device)
    loop = Loop(network, items, recipe, taught, penalty, device)
    before = loop.judge(items.heldout)
    described = {
        "model": model.sha256,
        "data": data.sha256(),
        "teacher": None if teacher is None else teacher.sha256,
        "cut": list(cut.tensors),
        "penalty": None if penalty is None else type(penalty).__qualname__,
        **asdict(recipe),
    }
    with progress("training", recipe.epochs) as step:
        epochs = loop.run(checkpoint, described, step, watch)
    after = loop.judge(items.heldout)
    proto = network.graph.to_proto()
    training = Training(
        model_sha256=model.sha256,
        retrained_sha256=digest(proto),
        tensors=cut.tensors,
        mode=recipe.mode,
        teacher_sha256=None if teacher is None else teacher.sha256,
        training_items=len(items.training),
        validation_items=len(items.validation),
        heldout_items=len(items.heldout),
        features_kept=loop.features_kept,
        best_epoch=loop.best_epoch,
        accuracy_before=before.accuracy,
        accuracy_after=after.accuracy,
        accuracy_teacher=None if taught is None else accuracy_of(taught, items, device),
        agreement=None if taught is None else agreement_of(taught, network, items, device),
        epochs=tuple(epochs),
    )
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return Retrained(proto=proto, training=training)


def _require_alike(model: Model, teacher: Model) -> None:
    """Raise RetrainError unless the teacher takes and gives what the model does."""
    for side in ("inputs", "outputs"):
        mine = [(tensor.name, tensor.dtype, tensor.shape) for tensor in getattr(model, side)]
        theirs = [(tensor.name, tensor.dtype, tensor.shape) for tensor in getattr(teacher, side)]
        if mine != theirs:
            raise RetrainError(
                f"teacher '{teacher.name}': its {side} are {theirs}; expected those of '{model.name}', {mine}"
            )
