"""How much each channel matters to a model's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from siniantrust._extras import require
from siniantrust.graph import Model
from siniantrust.masking.restructure._channels import Space
from siniantrust.masking.restructure._remove import spread
from siniantrust.odla.torch_graph import TrainableGraph

_BATCH = 64
_MATRIX = 2


def importances(model: Model, found: Sequence[Space], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Return for each space how much its channels matter, (channels,) each.

    A channel's figure is the squared sum of weight times gradient over all weights that make it: the first-order change
    of the loss if it were removed (Molchanov et al. 2019), summed over batches. The loss is the surprise at the
    model's own answers, drawn from their softmax, so that no labels are needed; of other answers, their mean square.

    Raises:
        DeviceError: if PyTorch cannot run or train one of the operators.
    """
    torch = require("torch", extra="leakage")
    graph = TrainableGraph(model.proto).eval()
    weights = dict(graph.named_weights())
    totals = [np.zeros(space.width) for space in found]
    count = len(next(iter(inputs.values())))
    draws = torch.Generator().manual_seed(0)
    for start in range(0, count, _BATCH):
        batch = [torch.from_numpy(np.ascontiguousarray(inputs[t.name][start : start + _BATCH])) for t in model.inputs]
        answer = graph(*batch)[0].float()
        graph.zero_grad()
        if answer.ndim == _MATRIX and answer.shape[1] > 1:
            own = torch.multinomial(answer.detach().softmax(dim=1), 1, generator=draws)[:, 0]
            loss = torch.nn.functional.cross_entropy(answer, own)
        else:
            loss = answer.square().mean()
        loss.backward()
        changes = {
            name: (weight * weight.grad).detach().numpy() for name, weight in weights.items() if weight.grad is not None
        }
        for place, space in enumerate(found):
            sums = [spread(changes[each.stored], each) for each in space.made if each.stored in changes]
            totals[place] = totals[place] + np.square(np.sum(sums, axis=0))
    return totals
