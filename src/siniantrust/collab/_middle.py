"""The cloud's part in split learning: forward, backward, and what becomes of the edges' parts.

Where every step ends with an average and all edges wait for it, what is averaged are gradients, and the cloud's one
optimiser applies them: Adam on each edge would stretch the small gradients of classes that the edge hardly has. Else
each edge takes steps of its own, and weights are averaged (McMahan et al. 2017).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from siniantrust.collab._agreement import Agreement
from siniantrust.collab._config import CloudConfig, TrainingSection
from siniantrust.collab._errors import DivergedError
from siniantrust.collab._learner import Learner
from siniantrust.collab._task import Task
from siniantrust.collab._team import team_of
from siniantrust.collab._trained_part import TrainedPart, shared_weights
from siniantrust.collab._wire import LABELS, label_tensor
from siniantrust.graph import Tensor

FORWARD, BACKWARD, AVERAGE = "forward", "backward", "average"
LOSS = "loss"
Arrays = dict[str, np.ndarray]


def phases(training: TrainingSection, task: Task, step: int) -> list[str]:
    """Return the calls that one step is made of."""
    found = [FORWARD, BACKWARD] if task.labels_at_edge else [FORWARD]
    last = step == training.steps
    return [*found, AVERAGE] if step % training.average_every == 0 or last else found


def averages_gradients(training: TrainingSection) -> bool:
    """Return whether the edges' parts learn from their averaged gradients, and not each on its own."""
    return training.arrivals == "synchronous" and training.average_every == 1


def edge_parts(task: Task, training: TrainingSection) -> list[TrainedPart]:
    """Return the edge's parts in training: Part 1, and Part 3 where there is one."""
    frozen = shared_weights(task.parts)
    return [TrainedPart(part, training, frozen=frozen) for part in (task.parts[0], *task.parts[2:])]


def average(given: Mapping[str, Arrays], items: Mapping[str, int]) -> Arrays:
    """Return the mean of arrays, each edge's as heavy as its items."""
    total = sum(items[edge] for edge in given)
    shares = {edge: items[edge] / total for edge in given}
    found: Arrays = {}
    for name, first in next(iter(given.values())).items():
        mean = np.zeros(first.shape)
        for edge, share in shares.items():
            mean += share * given[edge][name].astype(np.float64)
        found[name] = mean.astype(first.dtype)
    return found


class Middle:
    """Part 2 in training, over the items of several edges at once, and the newest of the edges' parts.

    Gradients that go back to an edge are those of the mean loss over its own items, while Part 2 learns from the mean
    over all: with the edges' gradients averaged, that is the step that one machine with all data would do.
    """

    def __init__(self, task: Task, training: TrainingSection) -> None:
        self._part = TrainedPart(task.parts[1], training, frozen=shared_weights(task.parts))
        self._learner = Learner(self._part)
        self._task = task
        self._training = training
        self._edges = edge_parts(task, training)
        self._items: dict[str, int] = {}

    @contextmanager
    def staffed(self, config: CloudConfig, agreement: Agreement) -> Iterator[None]:
        """Have Part 2 trained by as many processes as the configuration says, until the block ends.

        Raises:
            CollabError: if Part 2 cannot be trained so, or if they do not start.
        """
        if config.workers == 1:
            yield
            return
        with team_of(config, agreement, self._task, self._part) as team:
            self._learner = team
            yield

    def watch(self) -> None:
        """Look after the processes that train Part 2.

        Raises:
            CollabError: if one is lost.
        """
        self._learner.watch()

    def expected(self, phase: str) -> list[Tensor]:
        """Return the tensors of a request."""
        task = self._task
        if phase == AVERAGE:
            return [tensor for part in self._edges for tensor in part.signature()]
        if phase == BACKWARD:
            return [task.answers]
        return [task.features] if task.labels_at_edge else [task.features, label_tensor()]

    def run(self, phase: str, given: Mapping[str, Arrays], step: int, steps: int) -> dict[str, Arrays]:
        """Do a phase for the edges that gave something, in their order.

        Raises:
            DivergedError: if what comes out is not finite; nothing was learnt from it then.
        """
        if phase == AVERAGE:
            mean = average(given, self._items)
            if averages_gradients(self._training):
                for part in self._edges:
                    part.learn(mean, step, steps)
            else:
                self.take(mean)
            return dict.fromkeys(given, self.values())
        if phase == FORWARD:
            return self._forward(given, step, steps)
        return self._backward(given, step, steps)

    def values(self) -> Arrays:
        """Return the weights and running statistics of the edges' parts."""
        return {name: array.copy() for part in self._edges for name, array in part.values().items()}

    def take(self, values: Arrays) -> None:
        """Take what the edges' parts are now."""
        for part in self._edges:
            part.take(values)

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint needs."""
        return {"part": self._part.state(), "edges": [part.state() for part in self._edges]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what ``state`` returned."""
        self._learner.restore(state["part"])
        for part, saved in zip(self._edges, state["edges"], strict=True):
            part.restore(saved)

    def weights(self) -> Arrays:
        """Return all parts' trained numbers by the names that the ONNX model gives them."""
        found: Arrays = {}
        for each in (*self._edges, self._part):
            found |= each.weights()
        return found

    def _forward(self, given: Mapping[str, Arrays], step: int, steps: int) -> dict[str, Arrays]:
        name = self._task.features.name
        self._items = {edge: len(arrays[name]) for edge, arrays in given.items()}
        features = torch.from_numpy(np.concatenate([arrays[name] for arrays in given.values()]))
        scores = self._learner.forward(features, step)
        self._require_finite(scores)
        if self._task.labels_at_edge:
            return self._shares({self._task.answers.name: scores}, scaled=False)
        labels = torch.from_numpy(np.concatenate([arrays[LABELS] for arrays in given.values()]))
        losses = torch.nn.functional.cross_entropy(scores.requires_grad_(), labels, reduction="none")
        self._require_finite(losses)
        (gradient,) = torch.autograd.grad(losses.mean(), scores)
        answers = self._shares({name: self._learner.backward(gradient, step, steps)}, scaled=True)
        for edge, share in zip(given, torch.split(losses.detach(), list(self._items.values())), strict=True):
            answers[edge][LOSS] = share.mean().reshape(1).numpy()
        return answers

    def _backward(self, given: Mapping[str, Arrays], step: int, steps: int) -> dict[str, Arrays]:
        name = self._task.answers.name
        total = sum(self._items.values())
        gradients = [torch.from_numpy(arrays[name]) * (self._items[edge] / total) for edge, arrays in given.items()]
        found = self._learner.backward(torch.cat(gradients), step, steps)
        return self._shares({self._task.features.name: found}, scaled=True)

    def _require_finite(self, values: torch.Tensor) -> None:
        shares = torch.split(values, list(self._items.values()))
        if odd := [edge for edge, share in zip(self._items, shares, strict=True) if not share.isfinite().all()]:
            raise DivergedError(odd)

    def _shares(self, values: Mapping[str, torch.Tensor], *, scaled: bool) -> dict[str, Arrays]:
        total = sum(self._items.values())
        shares: dict[str, Arrays] = {edge: {} for edge in self._items}
        for name, tensor in values.items():
            for edge, share in zip(self._items, torch.split(tensor, list(self._items.values())), strict=True):
                shares[edge][name] = (share * (total / self._items[edge]) if scaled else share).numpy()
        return shares


def to_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Return arrays as tensors, as checkpoints hold them."""
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def to_arrays(tensors: Mapping[str, Any]) -> Arrays:
    """Return what ``to_tensors`` was given."""
    return {name: tensor.numpy() for name, tensor in tensors.items()}
