"""Magnitudes in C: of single numbers, and the length of the last axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from lowering_host import build_model, run_lowered, run_reference
from onnx import TensorProto, helper

from siniantrust.errors import ModelError
from siniantrust.lowering import lower

_FLOAT = TensorProto.FLOAT


def test_magnitudes_equal_onnx_runtime_bit_by_bit(tmp_path: Path) -> None:
    """Zeros, infinities and NaN lose their sign as all numbers do."""
    x = np.array([0.0, -0.0, -1.5, 2.0, -np.inf, np.nan, -1e-45], np.float32)
    model = build_model([helper.make_node("Abs", ["x"], ["y"])], {"x": (_FLOAT, [7])}, {"y": (_FLOAT, [7])})
    found, expected = run_lowered(model, {"x": x}, tmp_path)["y"], run_reference(model, {"x": x})["y"]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found[:5]), np.signbit(expected[:5]))


def _length(shape: list[int | str], made: list[int | str], axes: list[int], *, keepdims: int = 1) -> onnx.ModelProto:
    node = helper.make_node("ReduceL2", ["x"], ["y"], axes=axes, name="length", keepdims=keepdims)
    return build_model([node], {"x": (_FLOAT, shape)}, {"y": (_FLOAT, made)}, opset=17)


@pytest.mark.parametrize(
    ("made", "axes", "keepdims"),
    [([2, 1, 1], [1, 2], 1), ([2], [1, 2], 0), ([2, 3, 1], [2], 1), ([2, 3], [-1], 0), ([1, 1, 1], [0, 1, 2], 1)],
)
def test_lengths_equal_onnx_runtime(tmp_path: Path, made: list[int | str], axes: list[int], keepdims: int) -> None:
    """Over one, two and all axes, with and without them in the result."""
    x = np.random.default_rng(0).normal(size=(2, 3, 500)).astype(np.float32)
    model = _length([2, 3, 500], made, axes, keepdims=keepdims)
    found, expected = run_lowered(model, {"x": x}, tmp_path)["y"], run_reference(model, {"x": x})["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(("made", "axes"), [([1, 3, 500], [0]), ([2, 1, 500], [1]), ([1, 3, 1], [0, 2])])
def test_lengths_over_other_axes_are_refused(made: list[int | str], axes: list[int]) -> None:
    """What is not one stretch of memory is refused by name."""
    with pytest.raises(ModelError, match="node 'length': ReduceL2: only the last axes"):
        lower(_length([2, 3, 500], made, axes))
