"""A part in training: its weights, its optimiser, and everything that a step depends on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
import torch

from siniantrust.collab._config import TrainingSection
from siniantrust.collab._errors import CollabError
from siniantrust.graph import Part, Tensor
from siniantrust.odla.torch_graph import TrainableGraph

_MOMENTUM = 0.9


def seed_of(*words: object) -> int:
    """Return a number of 63 bits that follows from ``words`` alone."""
    digest = hashlib.sha256("\0".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


class TrainedPart:
    """A part that one side trains.

    Args:
        part: the part.
        training: optimiser, learning rate, schedule, seed.
        frozen: names of weights that stay, since another part has them too.
    """

    def __init__(self, part: Part, training: TrainingSection, *, frozen: Collection[str]) -> None:
        own = {tensor.name for tensor in part.proto.graph.initializer}
        self.module = TrainableGraph(part.proto, frozen=own & set(frozen)).train()
        self._run: torch.nn.Module = self.module
        self._name = part.name
        self._training = training
        parameters = list(self.module.parameters())
        self._optimiser: torch.optim.Optimizer | None = None
        if parameters and training.optimiser == "adam":
            self._optimiser = torch.optim.Adam(parameters, lr=training.learning_rate)
        elif parameters:
            self._optimiser = torch.optim.SGD(parameters, lr=training.learning_rate, momentum=_MOMENTUM)

    def forward(self, values: torch.Tensor, step: int, *, who: str = "") -> torch.Tensor:
        """Return the part's output for a step of training; what is random in it follows from the step and ``who``."""
        torch.manual_seed(seed_of(self._training.seed, self._name, who, step))
        found: torch.Tensor = self._run(values)[0]
        return found

    def distribute(self) -> None:
        """From now on, let the gradients that a pass gathers be summed over all processes of torch's group."""
        distributed = torch.nn.parallel.DistributedDataParallel(self.module)
        # DDP alone takes the mean over processes, but each has the gradient of a mean over all items. A lambda, since
        # DDP refuses annotations that are not evaluated.
        distributed.register_comm_hook(None, lambda _, bucket: _summed(bucket.buffer()))
        self._run = distributed

    def update(self, step: int, steps: int) -> None:
        """Apply the gradients that were gathered, with the learning rate of step ``step`` of ``steps``."""
        if self._optimiser is None:
            return
        rate = self._training.learning_rate
        if self._training.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        self._optimiser.zero_grad()

    def gradients(self) -> dict[str, np.ndarray]:
        """Return the gradients that were gathered, and the running statistics, under the names of ``values``."""
        gathered = {
            key: torch.zeros_like(weight) if weight.grad is None else weight.grad
            for key, weight in self.module.named_parameters()
        }
        tensors = self.module.state_dict() | gathered
        return {f"{self._name}/{key}": tensor.numpy() for key, tensor in tensors.items()}

    def learn(self, gradients: Mapping[str, np.ndarray], step: int, steps: int) -> None:
        """Update with the average of what ``gradients`` returned elsewhere; other parts' names are left aside."""
        trained = dict(self.module.named_parameters())
        for key, tensor in self.module.state_dict().items():
            given = torch.from_numpy(gradients[f"{self._name}/{key}"])
            if key in trained:
                trained[key].grad = given
            else:
                tensor.copy_(given)
        self.update(step, steps)

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint needs."""
        optimiser = {} if self._optimiser is None else self._optimiser.state_dict()
        return {"module": self.module.state_dict(), "optimiser": optimiser}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what ``state`` returned."""
        self.module.load_state_dict(state["module"])
        if self._optimiser is not None:
            self._optimiser.load_state_dict(state["optimiser"])
            self._optimiser.zero_grad()

    def signature(self) -> list[Tensor]:
        """Return names, types and shapes of ``values``."""
        return [Tensor(name, array.dtype.name, array.shape) for name, array in self.values().items()]

    def values(self) -> dict[str, np.ndarray]:
        """Return the weights and running statistics, by names that are this part's own."""
        return {f"{self._name}/{name}": tensor.numpy() for name, tensor in self.module.state_dict().items()}

    def take(self, values: Mapping[str, np.ndarray]) -> None:
        """Take weights and running statistics in place of its own; others' names are left aside.

        Gradients that were gathered are forgotten: they are those of other weights.
        """
        self.module.zero_grad()
        with torch.no_grad():
            for name, tensor in self.module.state_dict().items():
                tensor.copy_(torch.from_numpy(values[f"{self._name}/{name}"]))

    def weights(self) -> dict[str, np.ndarray]:
        """Return all stored numbers by the names that the ONNX model gives them.

        Raises:
            CollabError: if training has made one that is not finite.
        """
        for name, weight in self.module.named_weights():
            if not weight.isfinite().all():
                raise CollabError(f"weight '{name}' is not finite; start anew with a smaller learning_rate")
        return {t.name: onnx.numpy_helper.to_array(t) for t in self.module.to_proto().graph.initializer}


def _summed(values: torch.Tensor) -> torch.futures.Future[torch.Tensor]:
    done = torch.distributed.all_reduce(values, async_op=True).get_future()
    summed: torch.futures.Future[torch.Tensor] = done.then(lambda found: found.value()[0])
    return summed


def shared_weights(parts: Collection[Part]) -> set[str]:
    """Return the names of stored numbers that more than one part reads; they are not trained."""
    seen: set[str] = set()
    shared: set[str] = set()
    for part in parts:
        names = {tensor.name for tensor in part.proto.graph.initializer}
        shared |= seen & names
        seen |= names
    return shared
