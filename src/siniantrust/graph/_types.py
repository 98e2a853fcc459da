"""The graph's vocabulary: tensors, nodes, models, cuts and parts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value of the graph, as one batch item sees it.

    Attributes:
        name: the value's name in the model.
        dtype: numpy's name of the element type (``object`` for strings).
        shape: concrete dimensions; the batch counts as 1. A 0 in a model's output is a size known only at run time.
        batch_axis: the axis that grows with the batch, or None when the batch is fixed or does not reach this value.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    batch_axis: int | None = None

    @property
    def elements(self) -> int:
        """Number of elements of one batch item."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes of one batch item."""
        return self.elements * np.dtype(self.dtype).itemsize

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether an array of ``shape`` can be this value, for any batch size if it has a batch axis.

        The batch axis of a value may be a multiple of the batch (batch x heads, say), never less than one item's.
        """
        if len(shape) != len(self.shape):
            return False
        for axis, (found, expected) in enumerate(zip(shape, self.shape, strict=True)):
            if axis == self.batch_axis:
                if found < max(expected, 1) or (expected and found % expected):
                    return False
            elif expected not in (found, 0):
                return False
        return True


@dataclass(frozen=True, slots=True)
class Node:
    """One operator in topological order, with what it costs for one batch item.

    ``inputs`` leaves out omitted ones and includes the values that subgraphs (If, Loop, Scan) capture. ``flops``
    counts a multiply-accumulate as two. ``parameters`` are the elements of the initialisers it reads.
    """

    index: int
    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    flops: int
    parameters: int
    parameter_bytes: int
    activation_bytes: int


@dataclass(frozen=True)
class Model:
    """A checked ONNX model with inferred shapes, folded constants and a cost per node.

    ``nodes[i]`` describes ``proto.graph.node[i]``. ``tensors`` holds inputs and node outputs of known shape, no
    constants.
    ``sha256`` identifies the model as it was given (before folding). ``batch_symbol`` is the name of the free first
    dimension that all inputs and outputs share, or None when the batch size is fixed.
    """

    name: str
    source: Path | None
    sha256: str
    proto: onnx.ModelProto = field(repr=False)
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[Node, ...] = field(repr=False)
    tensors: Mapping[str, Tensor] = field(repr=False)
    batch_symbol: str | None

    @property
    def flops(self) -> int:
        """Floating-point operations of one batch item."""
        return sum(node.flops for node in self.nodes)

    @cached_property
    def producers(self) -> Mapping[str, int]:
        """Index of the node that makes each value; inputs and constants are absent."""
        return {output: node.index for node in self.nodes for output in node.outputs}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[int, ...]]:
        """Indices of the nodes that read each value, ascending; values that no node reads are absent."""
        readers: dict[str, list[int]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                readers.setdefault(name, []).append(node.index)
        return {name: tuple(indices) for name, indices in readers.items()}


@dataclass(frozen=True, slots=True)
class Cut:
    """A convex prefix of the graph, named by the tensors that cross its edge.

    The prefix is every ancestor of ``tensors``. ``fusable`` marks a cut that only separates an operator from an
    activation (or normalisation) that a runtime would fuse into it: legal, but rarely worth offering.
    """

    id: str
    tensors: tuple[str, ...]
    nodes_before: int
    size_bytes: int
    flops_before: int
    fusable: bool


@dataclass(frozen=True, slots=True)
class CutSet:
    """All cuts found, in topological order.

    ``cap`` bounds the multi-tensor cuts (single-tensor cuts are always complete); ``capped`` says that the cap, or the
    search budget that grows with it, stopped the search.
    """

    cuts: tuple[Cut, ...]
    capped: bool
    cap: int

    def by_id(self, cut_id: str) -> Cut | None:
        """Return the cut named ``cut_id``, or None."""
        return next((cut for cut in self.cuts if cut.id == cut_id), None)


@dataclass(frozen=True)
class Part:
    """A stand-alone ONNX model that computes ``outputs`` from ``inputs``; parts in order compose to the whole."""

    name: str
    proto: onnx.ModelProto = field(repr=False)
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    node_names: tuple[str, ...] = field(repr=False)
    batch_symbol: str | None
