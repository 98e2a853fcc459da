"""The items of a training: what is learnt from, what ends it, and what it is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from siniantrust.graph import Model
from siniantrust.leakage import Data
from siniantrust.masking.retrain._recipe import RetrainError

_HELDOUT_SHARE = 0.2
_VALIDATION_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Items:
    """Items by the names of the model's inputs, on the processor, and their labels if there are any.

    ``training``, ``validation`` and ``heldout`` hold row numbers; no row is in two of them. Training ends by the
    validation items. Nothing is chosen by the held-out ones, so that accuracy on them is no one's choice.
    """

    inputs: Mapping[str, torch.Tensor] = field(repr=False)
    labels: torch.Tensor | None = field(repr=False)
    private: str
    training: np.ndarray = field(repr=False)
    validation: np.ndarray = field(repr=False)
    heldout: np.ndarray = field(repr=False)

    def batch(self, rows: np.ndarray, device: torch.device) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Return the inputs and labels of some items on ``device``."""
        chosen = torch.from_numpy(rows)
        inputs = {name: values[chosen].to(device) for name, values in self.inputs.items()}
        return inputs, None if self.labels is None else self.labels[chosen].to(device)


def make_items(data: Data, model: Model, *, seed: int) -> Items:
    """Split ``data``: a tenth of what is not held out validates; where nothing is marked, a random fifth is held out.

    Raises:
        RetrainError: if the model's batch is fixed, or there are too few items for three sets.
    """
    if model.batch_symbol is None:
        raise RetrainError(f"model '{model.name}': its batch size is fixed; export it with a free first dimension")
    order = np.random.default_rng(seed).permutation(len(data))
    if data.heldout is None:
        count = round(len(data) * _HELDOUT_SHARE)
        heldout, known = order[:count], order[count:]
    else:
        heldout, known = order[data.heldout[order]], order[~data.heldout[order]]
    count = round(len(known) * _VALIDATION_SHARE)
    if not count or not len(heldout):
        raise RetrainError(
            f"data: {len(data)} items, {len(heldout)} of them held out, are too few to train, validate and judge; "
            "give at least 5 that are not held out, and one that is"
        )
    return Items(
        inputs={name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in data.arrays().items()},
        labels=None if data.labels is None else torch.from_numpy(data.labels.astype(np.int64)),
        private=data.input_name,
        training=np.sort(known[count:]),
        validation=np.sort(known[:count]),
        heldout=np.sort(heldout),
    )
