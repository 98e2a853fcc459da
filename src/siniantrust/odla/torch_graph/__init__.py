"""ONNX graphs run in PyTorch, differentiably, from any of their tensors to any others."""

from siniantrust.odla.torch_graph._graph import TorchGraph, torch_dtype

__all__ = ["TorchGraph", "torch_dtype"]
