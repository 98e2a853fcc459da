"""Seconds of nodes that were not measured one by one, from what groups of nodes took: FLOPs and bytes per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from siniantrust.graph import Model, Node
from siniantrust.odla import fit_non_negative

_CLASSES: Mapping[str, str] = {
    **dict.fromkeys(("Conv", "FusedConv", "ConvInteger", "QLinearConv", "ConvTranspose", "DeformConv"), "convolution"),
    **dict.fromkeys(("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulInteger", "QLinearMatMul"), "product"),
    **dict.fromkeys(("Einsum", "Attention", "LSTM", "GRU", "RNN"), "product"),
}
_OTHER = "other"
_NAMES = (*dict.fromkeys(_CLASSES.values()), _OTHER)
# A fit to fewer groups says what noise says.
LEAST_GROUPS = 4


@dataclass(frozen=True)
class NodeCosts:
    """Coefficients of one device: seconds per node, and per FLOP and byte of each class of operators.

    ``error`` is the median over the groups of the relative error with which each was predicted from the others.
    """

    model: Model
    coefficients: np.ndarray
    error: float

    def latency_s(self, node: Node) -> float:
        """Return the predicted seconds of a node."""
        return float(_features(self.model, [node]) @ self.coefficients)


def fit_nodes(model: Model, groups: Sequence[Sequence[Node]], seconds: Sequence[float]) -> NodeCosts:
    """Fit by non-negative least squares: seconds of a group = sum over its nodes of constant, FLOPs and bytes.

    Convolutions, products and all other operators have coefficients of their own for FLOPs and bytes (what a node
    reads, parameters included, and writes); the constant is that of any node.

    Args:
        model: the model whose nodes they are.
        groups: at least ``LEAST_GROUPS`` groups of nodes that were measured together.
        seconds: what each took, calls aside.
    """
    rows = np.array([_features(model, group) for group in groups])
    measured = np.maximum(np.array(seconds), 1e-9)
    missed = []
    for left_out in range(len(rows)):
        others = np.arange(len(rows)) != left_out
        predicted = rows[left_out] @ fit_non_negative(rows[others], measured[others])
        missed.append(abs(predicted - measured[left_out]) / measured[left_out])
    return NodeCosts(model, fit_non_negative(rows, measured), float(np.median(missed)))


def _features(model: Model, nodes: Sequence[Node]) -> np.ndarray:
    row = np.zeros(1 + 2 * len(_NAMES))
    row[0] = len(nodes)
    for node in nodes:
        column = 1 + 2 * _NAMES.index(_CLASSES.get(node.op_type, _OTHER))
        row[column] += node.flops
        row[column + 1] += node.activation_bytes + node.parameter_bytes + _read_bytes(model, node)
    return row


def _read_bytes(model: Model, node: Node) -> int:
    return sum(model.tensors[name].size_bytes for name in node.inputs if name in model.tensors)
