"""What a model makes of some items, for passes to learn from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from siniantrust._extras import require
from siniantrust.graph import Model
from siniantrust.odla.torch_graph import TorchGraph


def observe(model: Model, inputs: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Return the values of one tensor for some items.

    Raises:
        DeviceError: if PyTorch cannot run an operator that it needs.
    """
    torch = require("torch", extra="leakage")
    with torch.no_grad():
        given = {key: torch.from_numpy(np.ascontiguousarray(values)) for key, values in inputs.items()}
        found: np.ndarray = TorchGraph(model.proto).run(given, [name])[name].numpy()
    return found
