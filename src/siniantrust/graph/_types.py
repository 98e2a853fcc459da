"""The graph's vocabulary: tensors, nodes, models, cuts and parts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value of the graph. ``shape`` is concrete: a batch symbol counts as 1; ``dtype`` is numpy's name."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements of one batch item."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes of one batch item."""
        return self.elements * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Node:
    """One operator in topological order, with what it costs for one batch item.

    ``flops`` counts a multiply-accumulate as two. ``parameters`` are the elements of the initialisers it reads.
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
    """All cuts found, in topological order. ``capped`` says that the cap stopped the search for multi-tensor cuts."""

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
