"""Does a model contain attention? Then no plain-text cut of it is offered without an attack on its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from siniantrust.graph import Model, Node

_FUSED = {
    "Attention",
    "MultiHeadAttention",
    "GroupQueryAttention",
    "PackedAttention",
    "PackedMultiHeadAttention",
    "DecoderMaskedMultiHeadAttention",
    "QAttention",
    "LongformerAttention",
}
_PRODUCTS = {"MatMul", "Gemm", "Einsum", "MatMulInteger", "FusedMatMul"}
# Scaling, masking, dropout and layout changes stand between the products and the softmax in exported transformers.
_TRANSPARENT = {
    "Add",
    "Cast",
    "Clip",
    "Div",
    "Dropout",
    "Expand",
    "Identity",
    "IsNaN",
    "Mul",
    "Reshape",
    "Slice",
    "Softcap",
    "Squeeze",
    "Sub",
    "Tanh",
    "Transpose",
    "Unsqueeze",
    "Where",
}


def find_attention(model: Model) -> str | None:
    """Return the name of a node that is attention, or None.

    Attention is one of the fused operators, or a Softmax that a matrix product feeds and that feeds one
    (Vaswani et al. 2017, "Attention Is All You Need", equation 1), with only scaling, masking and layout between.
    """
    makers = {name: node for node in model.nodes for name in node.outputs if name}
    readers: dict[str, list[Node]] = {}
    for node in model.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    for node in model.nodes:
        if node.op_type in _FUSED:
            return node.name
        if node.op_type == "Softmax" and _reaches(node, makers=makers) and _reaches(node, readers=readers):
            return node.name
    return None


def _reaches(
    start: Node,
    *,
    makers: Mapping[str, Node] | None = None,
    readers: Mapping[str, Sequence[Node]] | None = None,
) -> bool:
    """Walk from ``start`` (backwards with ``makers``, forwards with ``readers``) until a matrix product is met."""
    seen: set[str] = set()
    stack = [start]
    while stack:
        node = stack.pop()
        if makers is not None:
            neighbours = [makers[name] for name in node.inputs if name in makers]
        else:
            neighbours = [reader for name in node.outputs for reader in (readers or {}).get(name, ())]
        for neighbour in neighbours:
            if neighbour.op_type in _PRODUCTS:
                return True
            if neighbour.op_type in _TRANSPARENT and neighbour.name not in seen:
                seen.add(neighbour.name)
                stack.append(neighbour)
    return False
