"""An edge's side of split learning: its parts step by step, with checkpoints to go back to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from siniantrust.collab import _methods as methods
from siniantrust.collab import collab_pb2 as pb
from siniantrust.collab._agreement import Agreement
from siniantrust.collab._checkpoints import Checkpoints
from siniantrust.collab._config import EdgeConfig
from siniantrust.collab._curve import Curve
from siniantrust.collab._data import Items, rows_of_step, steps_per_epoch
from siniantrust.collab._errors import CollabError, JoinAgainError
from siniantrust.collab._hijack import HijackDetector
from siniantrust.collab._link import Link
from siniantrust.collab._middle import (
    AVERAGE,
    BACKWARD,
    FORWARD,
    LOSS,
    Arrays,
    averages_gradients,
    edge_parts,
    phases,
)
from siniantrust.collab._passes import Passes
from siniantrust.collab._privacy import Noise, clipped, epsilons
from siniantrust.collab._task import Task
from siniantrust.collab._wire import LABELS, from_messages, to_messages
from siniantrust.graph import Tensor

_LOSS = Tensor(LOSS, "float32", (1,))


class SplitEdge:
    """Trains Part 1, and Part 3 where labels stay here, with a cloud that trains Part 2.

    Args:
        config: the edge's configuration.
        task: what is trained.
        agreement: what identifies the run.
        items: the edge's own items.
        link: to the cloud.
    """

    def __init__(self, config: EdgeConfig, task: Task, agreement: Agreement, items: Items, link: Link) -> None:
        self._config = config
        self._training = config.training
        self._task = task
        self._items = items
        self._link = link
        self._batch = min(config.batch, len(items.labels))
        self._parts = edge_parts(task, config.training)
        self._checkpoints = Checkpoints(config.folder / "checkpoints", agreement.sha256)
        self._noise = Noise(config.folder)
        self._passes = Passes(config.folder, per_epoch=steps_per_epoch(len(items.labels), self._batch))
        self._detector = HijackDetector()
        self._generation = 0
        # The step up to which something may have left.
        self._reached = 0
        self._curve = Curve(config.training.steps)
        if not self._passes.is_first_start:
            newest = max(self._checkpoints.steps(), default=0)
            self._reached = min(newest + self._training.checkpoint_every, self._training.steps)

    def run(self) -> None:
        """Do all steps; whatever is interrupted is taken up again.

        Raises:
            HijackError: if the cloud's gradients are not those of the task.
            CollabError: if training diverges, or a checkpoint cannot be used.
            RefusedError: if the cloud refuses what is sent.
            CloudLostError: if it is gone for too long.
        """
        step = self._join()
        while step < self._training.steps:
            try:
                self._step(step + 1)
            except JoinAgainError:
                step = self._join()
                continue
            step += 1
            if step % self._training.checkpoint_every == 0 or step == self._training.steps:
                self._save(step)

    def record(self) -> dict[str, Any]:
        """Return what ``training.json`` says of the steps."""
        found: dict[str, Any] = {
            "batch": self._batch,
            "curve": self._curve.points,
            "similarity_gap": self._detector.gap,
        }
        passes = self._passes.total(self._training.steps)
        if epsilon := epsilons(self._config.privacy, passes=passes):
            found["epsilon"] = epsilon | {"delta": self._config.privacy.delta, "passes": passes}
            found["epsilon_is_for"] = "one item's activations and gradients; not for averages, nor labels sent"
        return found

    def _join(self) -> int:
        answer = self._link.join(self._checkpoints.steps() or [0])
        if not self._checkpoints.steps():  # the sides agree, so that this is the run whose folder it is
            self._save(0)
        self._generation = answer.generation
        self._restore(answer.step)
        self._passes.repeat(answer.step, self._reached)
        self._reached = answer.step
        step: int = answer.step
        return step

    def _restore(self, step: int) -> None:
        # Asynchronous edges keep their weights whatever step is next, and nobody goes back from the end.
        goes_back = self._training.arrivals == "synchronous" and step < self._training.steps
        state = self._checkpoints.load(step if goes_back else self._checkpoints.steps()[-1])
        for part, saved in zip(self._parts, state["parts"], strict=True):
            part.restore(saved)
        self._curve.restore(state["curve"])

    def _save(self, step: int) -> None:
        self._checkpoints.save(step, {"parts": [part.state() for part in self._parts], "curve": self._curve.points})

    def _step(self, step: int) -> None:
        self._reached = step
        name, privacy = self._config.name, self._config.privacy
        rows = rows_of_step(len(self._items.labels), self._batch, step, seed=self._training.seed, name=name)
        labels = self._items.labels[rows]
        features = self._parts[0].forward(torch.from_numpy(self._items.inputs[rows]), step, who=name)
        sent = clipped(features, privacy.clip)
        if privacy.clip is not None and privacy.noise:
            sent = sent + privacy.noise * privacy.clip * self._noise.normal(sent, "activations", step)
        loss, gradient = self._cloud_gradient(sent, labels, step)
        if privacy.detect_hijack:
            self._detector.observe(gradient, labels, step=step)
        if sent.requires_grad:
            sent.backward(torch.from_numpy(gradient))  # type: ignore[no-untyped-call]
        if not averages_gradients(self._training):
            for part in self._parts:
                part.update(step, self._training.steps)
        if AVERAGE in phases(self._training, self._task, step):
            self._take_average(step)
        self._curve.note(step, loss)

    def _cloud_gradient(self, sent: torch.Tensor, labels: np.ndarray, step: int) -> tuple[float, np.ndarray]:
        """Return the loss, and the gradient by what was sent."""
        features = {self._task.features.name: sent.detach().numpy()}
        wanted = _sized(self._task.features, len(labels))
        if not self._task.labels_at_edge:
            found = self._call(FORWARD, features | {LABELS: labels}, [wanted, _LOSS], step)
            return float(found[LOSS][0]), found[wanted.name]
        answers = _sized(self._task.answers, len(labels))
        middle = torch.from_numpy(self._call(FORWARD, features, [answers], step)[answers.name]).requires_grad_()
        scores = self._parts[1].forward(middle, step, who=self._config.name)
        loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels))
        if not loss.isfinite():
            raise CollabError(f"step {step}: the loss is not finite; start anew with a smaller learning_rate")
        loss.backward()  # type: ignore[no-untyped-call]
        gradient = torch.zeros_like(middle) if middle.grad is None else middle.grad
        found = self._call(BACKWARD, {answers.name: self._protected(gradient, step)}, [wanted], step)
        return float(loss.detach()), found[wanted.name]

    def _protected(self, gradient: torch.Tensor, step: int) -> np.ndarray:
        privacy = self._config.privacy
        shown = clipped(gradient, privacy.gradient_clip)
        if privacy.gradient_clip is not None and privacy.gradient_noise:
            drawn = self._noise.normal(shown, "gradients", step)
            shown = shown + privacy.gradient_noise * privacy.gradient_clip * drawn
        return shown.numpy()

    def _take_average(self, step: int) -> None:
        own: Arrays = {}
        for part in self._parts:
            own |= part.gradients() if averages_gradients(self._training) else part.values()
        wanted = [tensor for part in self._parts for tensor in part.signature()]
        values = self._call(AVERAGE, own, wanted, step)
        for part in self._parts:
            part.take(values)

    def _call(self, phase: str, arrays: Arrays, wanted: list[Tensor], step: int) -> Arrays:
        request = pb.StepRequest(generation=self._generation, step=step, phase=phase)
        to_messages(arrays, request.tensors)
        answer = self._link.call(methods.STEP, request)
        return from_messages(answer.tensors, wanted, origin=f"the cloud, step {step}")


def _sized(tensor: Tensor, items: int) -> Tensor:
    """Return what a tensor of exactly ``items`` items looks like."""
    return Tensor(tensor.name, tensor.dtype, (items, *tensor.shape[1:]))
