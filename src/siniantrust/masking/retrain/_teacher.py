"""A network whose answers are learnt: what it says to the items, and how far it is agreed with."""

from __future__ import annotations

import numpy as np
import torch

from siniantrust.graph import Model
from siniantrust.leakage import random_tensors
from siniantrust.masking.retrain._frozen import Frozen
from siniantrust.masking.retrain._items import Items
from siniantrust.masking.retrain._losses import answers_of, are_classes, class_scores
from siniantrust.masking.retrain._network import Network
from siniantrust.odla.torch_graph import TorchGraph

_BATCH = 256


def taught_by(teacher: Model, items: Items, device: torch.device) -> Frozen:
    """Return the teacher's answers to the items.

    Raises:
        DeviceError: if PyTorch cannot run one of its operators.
    """
    graph, names = TorchGraph(teacher.proto), answers_of(teacher)

    def compute(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        with torch.no_grad(), device:
            return graph.run(inputs, names)

    return Frozen(compute, items, device, keep=random_tensors(teacher).isdisjoint(names))


def accuracy_of(taught: Frozen, items: Items, device: torch.device) -> float | None:
    """Return the share of held-out items whose label the teacher names; None without labels or classes."""
    right = []
    for rows in _batches(items.heldout):
        inputs, labels = items.batch(rows, device)
        answers = taught.of(rows, inputs)
        if labels is None or not are_classes(answers):
            return None
        right.append((class_scores(answers, labels).argmax(1) == labels).cpu().numpy())
    return float(np.concatenate(right).mean())


def agreement_of(taught: Frozen, network: Network, items: Items, device: torch.device) -> float | None:
    """Return the share of held-out items to which both give the same class; None where answers are no classes."""
    network.graph.eval()
    alike = []
    for rows in _batches(items.heldout):
        inputs, _ = items.batch(rows, device)
        answers = taught.of(rows, inputs)
        if not are_classes(answers):
            return None
        theirs = next(iter(answers.values()))
        with torch.no_grad():
            mine = next(iter(network.answers(network.features(inputs)).values()))
        alike.append((mine.argmax(1) == theirs.argmax(1)).cpu().numpy())
    return float(np.concatenate(alike).mean())


def _batches(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
