"""Nodes that OpenVINO takes and computes wrongly, found by the conformance table: declined, so that none runs there."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from siniantrust.graph import Part
from siniantrust.odla._device import Unsupported

_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})


def wrongly_computed(part: Part) -> list[Unsupported]:
    """Return the nodes of ``part`` whose answers OpenVINO is known to get wrong."""
    graph = part.proto.graph
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    return [
        Unsupported(node.name, node.op_type, reason)
        for node in graph.node
        if node.domain in {"", "ai.onnx"} and (reason := _reason(node, constants.__contains__)) is not None
    ]


def _reason(node: onnx.NodeProto, is_constant: Callable[[str], bool]) -> str | None:
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type in _RECURRENT and attributes.get("layout", 0):
        return "OpenVINO ignores layout=1 and mixes up batch and sequence"
    if node.op_type == "Tile" and not is_constant(node.input[1]):
        return "OpenVINO returns memory that it never wrote where the repeats are computed"
    return None
