"""Nodes that a backend takes and computes wrongly, as rules of that backend: declined, so that none runs there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx
from onnx import helper

from siniantrust.graph import Part
from siniantrust.odla._device import Unsupported

_PEEPHOLES = 7
_UNSIGNED = frozenset(
    (onnx.TensorProto.UINT8, onnx.TensorProto.UINT16, onnx.TensorProto.UINT32, onnx.TensorProto.UINT64)
)


@dataclass(frozen=True, slots=True)
class Seen:
    """A node as a rule sees it: its attributes, its inputs, and what is known of these."""

    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    constants: set[str]
    types: Mapping[str, onnx.TypeProto.Tensor]

    def has_input(self, place: int) -> bool:
        """Return whether the optional input at ``place`` is given."""
        return place < len(self.inputs) and bool(self.inputs[place])

    def type_of(self, place: int) -> int | None:
        """Return the element type of an input, None where it is not known."""
        found = self._found(place)
        return None if found is None else found.elem_type

    def rank_of(self, place: int) -> int | None:
        """Return the number of dimensions of an input, None where it is not known."""
        found = self._found(place)
        return len(found.shape.dim) if found is not None and found.HasField("shape") else None

    def _found(self, place: int) -> onnx.TypeProto.Tensor | None:
        return self.types.get(self.inputs[place]) if place < len(self.inputs) else None


Rule: TypeAlias = tuple[Callable[[Seen], bool], str]
Rules: TypeAlias = Mapping[str, tuple[Rule, ...]]


def wrongly_computed(part: Part, rules: Rules) -> list[Unsupported]:
    """Return the nodes of ``part`` whose answers are known to be wrong by ``rules``: per operator, when and why."""
    graph = part.proto.graph
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    types = {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info)}
    types |= {
        tensor.name: helper.make_tensor_type_proto(tensor.data_type, tensor.dims).tensor_type
        for tensor in graph.initializer
    }
    return [
        Unsupported(node.name, node.op_type, reason)
        for node in graph.node
        if node.domain in {"", "ai.onnx"} and (reason := _reason(node, rules, constants, types)) is not None
    ]


def _reason(
    node: onnx.NodeProto, rules: Rules, constants: set[str], types: Mapping[str, onnx.TypeProto.Tensor]
) -> str | None:
    of_operator = rules.get(node.op_type, ())
    attributes = (
        {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute} if of_operator else {}
    )
    seen = Seen(attributes, tuple(node.input), constants, types)
    return next((reason for is_wrong, reason in of_operator if is_wrong(seen)), None)


def always(_: Seen) -> bool:
    """Every node of the operator."""
    return True


def has_peepholes(seen: Seen) -> bool:
    """An LSTM whose gates see its state."""
    return seen.has_input(_PEEPHOLES)


def shifts_signed(seen: Seen) -> bool:
    """A BitShift of signed integers."""
    return seen.type_of(0) not in _UNSIGNED


def reorders_channels(seen: Seen) -> bool:
    """A SpaceToDepth that takes the channels first."""
    return bool(seen.attributes.get("mode", b"DCR") != b"DCR")


def aligns_corners(seen: Seen) -> bool:
    """A Resize that measures from the centres of the corners."""
    return bool(seen.attributes.get("coordinate_transformation_mode") == b"align_corners")
