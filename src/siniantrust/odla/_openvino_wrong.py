"""Nodes that OpenVINO takes and computes wrongly, found by the conformance table."""

from __future__ import annotations

import onnx

from siniantrust.odla._wrong_nodes import (
    Rules,
    Seen,
    aligns_corners,
    always,
    has_peepholes,
    reorders_channels,
    shifts_signed,
)


def _layout(seen: Seen) -> bool:
    return bool(seen.attributes.get("layout", 0))


def _computed_repeats(seen: Seen) -> bool:
    return seen.inputs[1] not in seen.constants


def _window(seen: Seen) -> bool:
    return "left_window_size" in seen.attributes or "right_window_size" in seen.attributes


def _biased_products(seen: Seen) -> bool:
    return bool(seen.attributes.get("qk_matmul_output_mode", 0) == 2)  # noqa: PLR2004 - the operator's number for them


def _wide_strides(seen: Seen) -> bool:
    kernel = seen.attributes.get("kernel_shape", ())
    strides = seen.attributes.get("strides", (1,) * len(kernel))
    return bool(seen.attributes.get("ceil_mode", 0)) and any(map(int.__gt__, strides, kernel))


def _sixteen_bits(seen: Seen) -> bool:
    return seen.type_of(2) == onnx.TensorProto.UINT16


def _resized(seen: Seen) -> bool:
    attributes = seen.attributes
    return (
        bool(attributes.get("antialias", 0))
        or bool(attributes.get("exclude_outside", 0))
        or attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch"
        or aligns_corners(seen)
    )


_LAYOUT = (_layout, "OpenVINO ignores layout=1 and mixes up batch and sequence")
RULES: Rules = {
    "Attention": (
        (_window, "OpenVINO ignores the window and attends to everything"),
        (_biased_products, "OpenVINO gives other products than those asked for"),
    ),
    "BitShift": ((shifts_signed, "OpenVINO shifts signed integers, and beyond their width, in another way"),),
    "DFT": ((always, "OpenVINO transforms along another axis, or gives another shape, than asked for"),),
    "GRU": (_LAYOUT,),
    "LSTM": (_LAYOUT, (has_peepholes, "OpenVINO leaves the peepholes out")),
    "MaxPool": ((_wide_strides, "OpenVINO keeps windows that begin behind the input"),),
    "QuantizeLinear": ((_sixteen_bits, "OpenVINO is off where it quantises to uint16"),),
    "RNN": (_LAYOUT,),
    "Resize": ((_resized, "OpenVINO ignores some of how it is asked to resize"),),
    "RoiAlign": ((lambda seen: seen.attributes.get("mode") == b"max", "OpenVINO takes the maximum over other places"),),
    "SpaceToDepth": ((reorders_channels, "OpenVINO ignores the order of the channels"),),
    "Tile": ((_computed_repeats, "OpenVINO returns memory that it never wrote where the repeats are computed"),),
}
