"""What networks that do not change make of the items: computed once where it is the same every time, and fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from siniantrust.masking.retrain._items import Items

_KEPT_BYTES = 1 << 30
_BATCH = 256

Compute = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


class Frozen:
    """Values of items by name, from inputs by name: kept on the processor, or computed for every batch anew.

    Args:
        compute: makes the values, without gradients.
        items: the items.
        device: where it computes.
        keep: whether values are the same every time.
    """

    def __init__(self, compute: Compute, items: Items, device: torch.device, *, keep: bool) -> None:
        self._compute = compute
        self._device = device
        self._kept: dict[str, torch.Tensor] | None = None
        count = len(items.training) + len(items.validation) + len(items.heldout)
        one = compute(items.batch(np.arange(1), device)[0])
        if keep and count * sum(values.nbytes for values in one.values()) <= _KEPT_BYTES:
            pieces = [
                compute(items.batch(np.arange(start, min(start + _BATCH, count)), device)[0])
                for start in range(0, count, _BATCH)
            ]
            self._kept = {name: torch.cat([piece[name].cpu() for piece in pieces]) for name in one}

    @property
    def kept(self) -> bool:
        """Whether the values were computed once."""
        return self._kept is not None

    def of(self, rows: np.ndarray, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the values of the items in ``rows``, whose inputs are ``inputs``."""
        if self._kept is None:
            return self._compute(dict(inputs))
        chosen = torch.from_numpy(rows)
        return {name: values[chosen].to(self._device) for name, values in self._kept.items()}
