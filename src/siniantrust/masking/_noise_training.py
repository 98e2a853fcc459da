"""Training the direction of noise against the part of the model that comes behind it."""

from __future__ import annotations

import numpy as np
import torch

from siniantrust.masking._site import Site
from siniantrust.odla.torch_graph import TorchGraph

_BATCH = 64
_RATE = 0.05
_SCORES_RANK = 2


def train_direction(site: Site, start: np.ndarray, *, steps: int) -> np.ndarray:
    """Return a direction, of the shape of ``start``, along which noise changes the model's answers least.

    Raises:
        DeviceError: if torch cannot run the part of the model behind the cut.
    """
    graph = TorchGraph(site.model.proto)
    outputs = [value.name for value in site.model.outputs]
    tensors = {name: site.model.tensors[name] for name in site.sample}
    axes = {name: tensor.batch_axis or 0 for name, tensor in tensors.items()}
    given = {name: torch.as_tensor(values.astype(tensors[name].dtype)) for name, values in site.sample.items()}
    direction = torch.as_tensor(start).requires_grad_()
    optimiser = torch.optim.Adam([direction], _RATE)
    for _ in range(steps):
        rows = torch.as_tensor(site.generator.permutation(site.values.shape[site.item_axis])[:_BATCH])
        plain = {name: values.index_select(axes[name], rows) for name, values in given.items()}
        with torch.no_grad():
            wanted = graph.run(plain, outputs)
        centred = direction - direction.mean()
        noise = centred * (site.strength * site.spread / centred.std(correction=0).clamp_min(1e-12))
        masked = plain | {site.value: plain[site.value] + noise.to(plain[site.value].dtype)}
        found = graph.run(masked, outputs)
        optimiser.zero_grad()
        torch.autograd.backward(torch.stack([_loss(found[name], wanted[name]) for name in outputs]).sum())
        optimiser.step()
    return direction.detach().numpy()


def _loss(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy to what is wanted where both are scores of classes, else the squared difference."""
    if found.ndim == _SCORES_RANK and found.shape[1] > 1:
        return torch.nn.functional.cross_entropy(found.double(), wanted.double().softmax(1))
    return (found.double() - wanted.double()).square().mean()
