"""Nodes that OpenVINO takes and computes wrongly, found by the conformance table: declined, so that none runs there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import helper

from siniantrust.graph import Part
from siniantrust.odla._device import Unsupported

_PEEPHOLES = 7
_UNSIGNED = frozenset(
    (onnx.TensorProto.UINT8, onnx.TensorProto.UINT16, onnx.TensorProto.UINT32, onnx.TensorProto.UINT64)
)


def wrongly_computed(part: Part) -> list[Unsupported]:
    """Return the nodes of ``part`` whose answers OpenVINO is known to get wrong."""
    graph = part.proto.graph
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    return [
        Unsupported(node.name, node.op_type, reason)
        for node in graph.node
        if node.domain in {"", "ai.onnx"} and (reason := _reason(node, constants, types)) is not None
    ]


@dataclass(frozen=True, slots=True)
class _Seen:
    """A node as a rule sees it."""

    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    constants: set[str]
    types: Mapping[str, int]

    def type_of(self, place: int) -> int | None:
        return self.types.get(self.inputs[place]) if place < len(self.inputs) else None


def _reason(node: onnx.NodeProto, constants: set[str], types: Mapping[str, int]) -> str | None:
    rules = _RULES.get(node.op_type, ())
    attributes = (
        {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute} if rules else {}
    )
    seen = _Seen(attributes, tuple(node.input), constants, types)
    return next((reason for is_wrong, reason in rules if is_wrong(seen)), None)


def _layout(seen: _Seen) -> bool:
    return bool(seen.attributes.get("layout", 0))


def _peepholes(seen: _Seen) -> bool:
    return len(seen.inputs) > _PEEPHOLES and bool(seen.inputs[_PEEPHOLES])


def _computed_repeats(seen: _Seen) -> bool:
    return seen.inputs[1] not in seen.constants


def _window(seen: _Seen) -> bool:
    return "left_window_size" in seen.attributes or "right_window_size" in seen.attributes


def _biased_products(seen: _Seen) -> bool:
    return bool(seen.attributes.get("qk_matmul_output_mode", 0) == 2)  # noqa: PLR2004 - the operator's number for them


def _signed(seen: _Seen) -> bool:
    return seen.type_of(0) not in _UNSIGNED


def _wide_strides(seen: _Seen) -> bool:
    kernel = seen.attributes.get("kernel_shape", ())
    strides = seen.attributes.get("strides", (1,) * len(kernel))
    return bool(seen.attributes.get("ceil_mode", 0)) and any(map(int.__gt__, strides, kernel))


def _sixteen_bits(seen: _Seen) -> bool:
    return seen.type_of(2) == onnx.TensorProto.UINT16


def _resized(seen: _Seen) -> bool:
    attributes = seen.attributes
    return (
        bool(attributes.get("antialias", 0))
        or bool(attributes.get("exclude_outside", 0))
        or attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch"
        or attributes.get("coordinate_transformation_mode") == b"align_corners"
    )


_LAYOUT = (_layout, "OpenVINO ignores layout=1 and mixes up batch and sequence")
_RULES: Mapping[str, tuple[tuple[Callable[[_Seen], bool], str], ...]] = {
    "Attention": (
        (_window, "OpenVINO ignores the window and attends to everything"),
        (_biased_products, "OpenVINO gives other products than those asked for"),
    ),
    "BitShift": ((_signed, "OpenVINO shifts signed integers, and beyond their width, in another way"),),
    "DFT": ((lambda _: True, "OpenVINO transforms along another axis, or gives another shape, than asked for"),),
    "GRU": (_LAYOUT,),
    "LSTM": (_LAYOUT, (_peepholes, "OpenVINO leaves the peepholes out")),
    "MaxPool": ((_wide_strides, "OpenVINO keeps windows that begin behind the input"),),
    "QuantizeLinear": ((_sixteen_bits, "OpenVINO is off where it quantises to uint16"),),
    "RNN": (_LAYOUT,),
    "Resize": ((_resized, "OpenVINO ignores some of how it is asked to resize"),),
    "RoiAlign": ((lambda seen: seen.attributes.get("mode") == b"max", "OpenVINO takes the maximum over other places"),),
    "SpaceToDepth": (
        (lambda seen: seen.attributes.get("mode", b"DCR") != b"DCR", "OpenVINO ignores the order of the channels"),
    ),
    "Tile": ((_computed_repeats, "OpenVINO returns memory that it never wrote where the repeats are computed"),),
}
