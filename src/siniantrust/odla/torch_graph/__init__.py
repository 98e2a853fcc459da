"""ONNX graphs run in PyTorch, differentiably, from any of their tensors to any others, and trained."""

from typing import TYPE_CHECKING

from siniantrust.odla.torch_graph._graph import TorchGraph, torch_dtype

if TYPE_CHECKING:
    from siniantrust.odla.torch_graph._trainable import TrainableGraph

__all__ = ["TorchGraph", "TrainableGraph", "torch_dtype"]


def __getattr__(name: str) -> object:
    """Import ``TrainableGraph`` when it is first asked for: it is a torch module, and torch is optional.

    Raises:
        MissingExtraError: if torch is not installed.
    """
    if name == "TrainableGraph":
        from siniantrust._extras import require

        require("torch", extra="leakage")
        from siniantrust.odla.torch_graph._trainable import TrainableGraph

        return TrainableGraph
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
