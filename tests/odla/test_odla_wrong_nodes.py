"""Rules that decline what a backend takes and computes wrongly."""

from __future__ import annotations

import pytest

from siniantrust.graph import Part
from siniantrust.odla import _iree_wrong, _openvino_wrong
from siniantrust.odla._wrong_nodes import Rules, wrongly_computed
from siniantrust.odla.conformance import node_cases

_RULES = {
    "iree": _iree_wrong.rules_of("llvm-cpu"),
    "iree on vulkan": _iree_wrong.rules_of("vulkan"),
    "openvino": _openvino_wrong.RULES,
}
# Cases that came out wrong on a backend before it had the rule, each with one of the same operator that came out right.
_FOUND = [
    (
        "iree",
        "test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True",
        "test_averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_True",
    ),
    ("iree", "test_bitshift_left_int8_negative_shift", "test_bitshift_left_uint8"),
    ("iree", "test_gridsample_nearest", "test_gridsample_bilinear"),
    ("iree", "test_l2normalization_axis_0", "test_l1normalization_axis_0"),
    ("iree", "test_lstm_with_peepholes", "test_lstm_defaults"),
    ("iree", "test_qlinearmatmul_3D_int8_float32", "test_qlinearmatmul_2D_int8_float32"),
    ("iree", "test_resize_downsample_scales_cubic_align_corners", "test_resize_downsample_scales_cubic"),
    ("iree", "test_sce_mean_weight", "test_sce_mean"),
    ("iree on vulkan", "test_isnan", "test_isinf"),
    ("iree on vulkan", "test_logsoftmax_axis_0", "test_logsoftmax_axis_2"),
    ("iree on vulkan", "test_softmax_axis_0", "test_softmax_negative_axis"),
    ("openvino", "test_bitshift_left_int8_negative_shift", "test_bitshift_left_uint8"),
    ("openvino", "test_lstm_with_peepholes", "test_lstm_defaults"),
    ("openvino", "test_resize_downsample_scales_cubic_align_corners", "test_resize_downsample_scales_cubic"),
]


def _part(name: str) -> Part:
    part = next(case.part for case in node_cases() if case.name == name)
    assert part is not None
    return part


@pytest.mark.parametrize(("backend", "wrong", "right"), _FOUND)
def test_what_came_out_wrong_is_declined_and_its_like_is_not(backend: str, wrong: str, right: str) -> None:
    """A rule says which node and names the backend, and does not take the whole operator along."""
    rules: Rules = _RULES[backend]
    (declined,) = wrongly_computed(_part(wrong), rules)
    assert declined.op_type == _part(wrong).proto.graph.node[-1].op_type
    assert declined.reason.lower().startswith(backend)
    assert wrongly_computed(_part(right), rules) == []


def test_what_only_vulkan_gets_wrong_is_taken_elsewhere() -> None:
    """A rule for Vulkan does not hold for the processor."""
    assert wrongly_computed(_part("test_isnan"), _iree_wrong.rules_of("llvm-cpu")) == []


def test_an_unknown_type_is_declined() -> None:
    """Where a part does not say what is shifted, it is not taken to be unsigned."""
    part = _part("test_bitshift_left_uint8")
    proto = type(part.proto)()
    proto.CopyFrom(part.proto)
    node = proto.graph.node[0]
    node.input[0] = "somewhere inside"
    unknown = Part(part.name, proto, part.inputs, part.outputs, part.node_names, part.batch_symbol)
    assert [each.op_type for each in wrongly_computed(unknown, _iree_wrong.rules_of("llvm-cpu"))] == ["BitShift"]
