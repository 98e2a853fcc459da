"""What is learnt: right labels, or another network's answers."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import torch
from torch.nn import functional

from siniantrust.graph import Model
from siniantrust.masking.retrain._recipe import RetrainError

_CLASS_RANK = 2


def answers_of(model: Model) -> tuple[str, ...]:
    """Return the tensors by which the model is judged: its floating outputs, before a final softmax over classes.

    Raises:
        RetrainError: if no output is a floating-point number.
    """
    makers: dict[str, onnx.NodeProto] = {name: node for node in model.proto.graph.node for name in node.output}
    floating = [tensor.name for tensor in model.outputs if tensor.dtype.startswith("float")]
    if not floating:
        raise RetrainError(f"model '{model.name}': no output is a floating-point number, so none can be trained")
    found = []
    for name in floating:
        maker = makers.get(name)
        found.append(maker.input[0] if maker is not None and maker.op_type == "Softmax" else name)
    return tuple(found)


def are_classes(answers: Mapping[str, torch.Tensor]) -> bool:
    """Return whether the first of the answers is one score for each class, (N, classes)."""
    return next(iter(answers.values())).ndim == _CLASS_RANK


def class_scores(answers: Mapping[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Return the first of the answers, which must be one score for each class.

    Raises:
        RetrainError: if it is no (N, classes), or a label is no class of it.
    """
    name, scores = next(iter(answers.items()))
    if not are_classes(answers):
        shape = tuple(scores.shape)
        raise RetrainError(f"answer '{name}': labels need scores of shape (N, classes), found {shape}; use a teacher")
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < scores.shape[1]:
        raise RetrainError(
            f"data: labels must be 0 to {scores.shape[1] - 1}, the classes of '{name}'; "
            f"found {int(labels.min())} to {int(labels.max())}"
        )
    return scores


def label_loss(answers: Mapping[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of the first answer."""
    return functional.cross_entropy(class_scores(answers, labels).float(), labels)


def teacher_loss(
    answers: Mapping[str, torch.Tensor], taught: Mapping[str, torch.Tensor], *, temperature: float
) -> torch.Tensor:
    """Return how far ``answers`` are from the teacher's, in the same order, summed over all of them.

    Scores of classes, (N, classes), are compared by the Kullback-Leibler divergence of their softmax at
    ``temperature``, times its square (Hinton, Vinyals, Dean 2015); everything else by the mean squared error.
    """
    total = torch.zeros((), device=next(iter(answers.values())).device)
    for mine, theirs in zip(answers.values(), taught.values(), strict=True):
        if mine.ndim == _CLASS_RANK and mine.shape[1] > 1:
            wanted = functional.log_softmax(theirs.float() / temperature, dim=1)
            found = functional.log_softmax(mine.float() / temperature, dim=1)
            total = total + functional.kl_div(found, wanted, reduction="batchmean", log_target=True) * temperature**2
        else:
            total = total + functional.mse_loss(mine.float(), theirs.float())
    return total
