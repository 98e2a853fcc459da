"""The ONNX model as a graph: load, check, shapes, costs, cut points and extraction of parts."""

from siniantrust.graph._types import Cut, CutSet, Model, Node, Part, Tensor

__all__ = ["Cut", "CutSet", "Model", "Node", "Part", "Tensor"]
