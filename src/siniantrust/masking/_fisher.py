"""How precisely any unbiased attacker can know the input behind noise: the bound of Cramer and Rao."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from siniantrust.graph import Model
from siniantrust.odla.torch_graph import TorchGraph

_ITEMS, _PROBES = 12, 8


def fisher_bound(
    model: Model, information: Mapping[str, float], inputs: Mapping[str, np.ndarray], *, seed: int
) -> float:
    """Return the least mean squared error, per number of the input, of unbiased estimates behind additive noise.

    Noise that tells ``information`` (1 / variance of the noise where it is Gaussian, 2 / variance where it is Laplace)
    about each number of a tensor gives I(x) = sum over tensors of information * J^T J about the input, with J the
    tensor's Jacobian. Every unbiased reconstruction x' of an input of d numbers has E||x - x'||² / d >= d / Tr(I(x)).
    The trace is the mean of information * ||v^T J||² over random signs v (Hutchinson 1989); it is averaged over items
    first, which makes the bound smaller (Jensen). In the squared units of the input. An attacker who knows the
    distribution of inputs is biased towards it, and may do better.

    Source: Maeng, Guo, Kariyappa and Suh, Bounding the Invertibility of Privacy-preserving Instance Encoding using
    Fisher Information, NeurIPS 2023.

    Args:
        model: the model before the noise.
        information: of each noisy tensor, per number of it.
        inputs: items, (items, ...) for every input of the model.
        seed: of the signs.

    Raises:
        DeviceError: if torch cannot run the model.
    """
    graph = TorchGraph(model.proto)
    items = {each.name: torch.as_tensor(inputs[each.name][:_ITEMS].astype(each.dtype)) for each in model.inputs}
    varied = {name: values.clone().requires_grad_() for name, values in items.items() if values.is_floating_point()}
    signs = torch.Generator().manual_seed(seed)
    reached = graph.run({**items, **varied}, list(information))
    trace = 0.0
    for _ in range(_PROBES):
        weights = [
            (torch.randint(0, 2, value.shape, generator=signs).to(value.dtype) * 2 - 1) * information[name] ** 0.5
            for name, value in reached.items()
        ]
        gradients = torch.autograd.grad(
            list(reached.values()), list(varied.values()), weights, retain_graph=True, materialize_grads=True
        )
        trace += sum(float(gradient.double().square().sum()) for gradient in gradients) / _PROBES
    count = min(len(values) for values in varied.values())
    numbers = sum(values[0].numel() for values in varied.values())
    return numbers * count / trace if trace else float("inf")
