"""The model between its two parts, as training sees it: inputs to features, features to answers."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from siniantrust.graph import Cut, Model, prefix_nodes
from siniantrust.leakage import random_tensors
from siniantrust.masking._record import fixed_constants
from siniantrust.masking.retrain._losses import answers_of
from siniantrust.masking.retrain._recipe import Mode, RetrainError
from siniantrust.odla.torch_graph import TrainableGraph


class Network:
    """A model that trains, cut in two. In the mode ``part2`` all that Part 1 stores is frozen.

    What its masks rest on (the size of noise, say) is frozen always: training would take it away.

    Raises:
        DeviceError: if PyTorch cannot run or train one of its operators; all are named.
        RetrainError: if nothing behind the cut can be trained.
    """

    def __init__(self, model: Model, cut: Cut, mode: Mode, device: torch.device) -> None:
        before = set(prefix_nodes(model, cut))
        stored = {tensor.name for tensor in model.proto.graph.initializer}
        read = {name for index in before for name in model.proto.graph.node[index].input}
        frozen = fixed_constants(model.proto) & stored
        self.graph = TrainableGraph(model.proto, frozen=frozen | (read & stored) if mode == "part2" else frozen)
        if next(self.graph.parameters(), None) is None:
            raise RetrainError(f"model '{model.name}': nothing behind the cut '{cut.id}' stores numbers to train")
        self.graph.to(device)
        self.cut = cut
        self.mode = mode
        self.answer_names = answers_of(model)
        self.features_random = not random_tensors(model).isdisjoint(cut.tensors)

    def features(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return what crosses the cut, differentiably where Part 1 is trained."""
        if self.mode == "joint":
            return self.graph.run(inputs, self.cut.tensors)
        training = self.graph.training
        # Dropout of a frozen part must not drop.
        self.graph.eval()
        with torch.no_grad():
            found = self.graph.run(inputs, self.cut.tensors)
        self.graph.train(training)
        return found

    def answers(self, features: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the answers to what crosses the cut."""
        return self.graph.run(features, self.answer_names)


def joined(features: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return what crosses as one tensor: as it is, or several flattened and joined to (N, elements)."""
    values = list(features.values())
    return values[0] if len(values) == 1 else torch.cat([each.flatten(1) for each in values], dim=1)
