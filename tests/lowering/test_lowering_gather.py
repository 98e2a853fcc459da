"""Gather, lowered: indices that are constants, sealed or computed, and those that are out of range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lowering_host import SANITISERS, build_model, compile_part, run_lowered, run_reference, run_source
from onnx import TensorProto, helper

from siniantrust.errors import ModelError
from siniantrust.lowering import lower, unsupported

_FLOAT, _INT64 = TensorProto.FLOAT, TensorProto.INT64
_QUIET = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def _gathers(draw: st.DrawFn) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Draw data of any axes and dtype, and indices for one of its axes: an input, a constant, or rounded floats.

    A constant of one float before them puts constants of 64 bits where they are not aligned to 8 bytes.
    """
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    size = shape[axis]
    picked = draw(st.lists(st.integers(1, 3), max_size=2))
    indices = np.array(draw(st.lists(st.integers(-size, size - 1), min_size=9, max_size=9)))
    indices = np.resize(indices, picked).astype(draw(st.sampled_from([np.int32, np.int64])))
    dtype = draw(st.sampled_from(["float32", "int64", "int8"]))
    x = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    kind, index_kind = (helper.np_dtype_to_tensor_dtype(array.dtype) for array in (x, indices))
    ports: dict[str, tuple[int, list[int | str]]] = {"x": (kind, list(shape)), "v": (_FLOAT, [1])}
    nodes = [helper.make_node("Mul", ["v", "one"], ["w"])]
    weights, inputs = {"one": np.ones(1, np.float32)}, {"x": x, "v": np.ones(1, np.float32)}
    origin = draw(st.sampled_from(["input", "constant", "computed"]))
    if origin == "input":
        ports["i"] = (index_kind, list(picked))
        inputs["i"] = indices
    elif origin == "constant":
        weights["i"] = indices
    else:
        ports["f"] = (_FLOAT, list(picked))
        inputs["f"] = np.asarray(indices + draw(st.sampled_from([0, 0.25, 0.75])), np.float32)
        nodes.append(helper.make_node("Floor", ["f"], ["whole"]))
        nodes.append(helper.make_node("Cast", ["whole"], ["i"], to=index_kind))
    nodes.append(helper.make_node("Gather", ["x", "i"], ["y"], axis=axis))
    found = list(np.take(x, indices, axis).shape)
    return build_model(nodes, ports, {"y": (kind, found), "w": (_FLOAT, [1])}, weights), inputs


@_QUIET
@given(drawn=_gathers())
def test_indices_in_range_equal_onnx_runtime(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], drawn: tuple[onnx.ModelProto, dict[str, np.ndarray]]
) -> None:
    """Any axis, dtype and shape of indices, from the front or the end, gives what ONNX Runtime gives."""
    model, inputs = drawn
    found, expected = run_lowered(model, inputs, tmp_path, *SANITISERS), run_reference(model, inputs)
    np.testing.assert_array_equal(found["y"], expected["y"])
    assert capfd.readouterr().err == ""


def _rows(indices: np.ndarray | None, *, count: int = 2) -> onnx.ModelProto:
    """Return a model that picks from the middle axis of [2, 3, 2], by constants where they are given."""
    node = helper.make_node("Gather", ["x", "i"], ["y"], axis=1, name="pick")
    ports: dict[str, tuple[int, list[int | str]]] = {"x": (_FLOAT, [2, 3, 2])}
    if indices is None:
        return build_model([node], ports | {"i": (_INT64, [count])}, {"y": (_FLOAT, [2, count, 2])})
    return build_model([node], ports, {"y": (_FLOAT, [2, len(indices), 2])}, {"i": indices})


_X = np.arange(12, dtype=np.float32).reshape(2, 3, 2)


def test_a_computed_index_out_of_range_picks_the_nearest(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """However far outside it is, an index picks from its own row, at the end that it lies beyond."""
    ends = np.iinfo(np.int64)
    indices = np.array([3, 4, 2**31, 2**32, ends.max, -4, -5, -(2**32), ends.min])
    model = _rows(None, count=len(indices))
    found = run_lowered(model, {"x": _X, "i": indices}, tmp_path, *SANITISERS)["y"]
    np.testing.assert_array_equal(found, _X[:, [2, 2, 2, 2, 2, 0, 0, 0, 0]])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("indices", [[0, 3], [-4, 1]], ids=["behind", "before"])
def test_a_constant_index_out_of_range_is_refused(indices: list[int], dtype: type[np.generic]) -> None:
    """Indices that the part shows are checked before anything is lowered; the node, they and the axis are named."""
    model = _rows(np.array(indices, dtype))
    with pytest.raises(ModelError, match=rf"'pick': Gather: 'i' has indices from {min(indices)} to {max(indices)}"):
        lower(model)
    assert unsupported(_rows(np.array([2, -3], dtype))) == {}


def test_many_constants_are_checked_too() -> None:
    """Indices of more elements than shape inference is given are known all the same."""
    model = _rows(np.array([0] * 99 + [3]))
    assert "axis 1 of 'x' has 3 elements" in unsupported(model)["pick"]


def test_a_sealed_index_out_of_range_picks_the_nearest(tmp_path: Path) -> None:
    """A sealed part shows no numbers: what it holds is treated like a computed index."""
    model, indices = _rows(np.array([1, 7])), np.array([1, 7])
    del model.graph.initializer[:]
    model.graph.value_info.append(helper.make_tensor_value_info("i", _INT64, [2]))
    lowered = lower(model)
    part_run = compile_part(lowered.source, tmp_path).part_run
    found = run_source(lowered, part_run, {"i": indices}, {"x": _X})["y"]
    np.testing.assert_array_equal(found, _X[:, [1, 2]])


@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        ([2], _INT64, r"Gather: 'x', \[2\], has no axis 1"),
        ([], _INT64, r"Gather: 'x', \[\], has no axis 1"),
        ([2, 0, 2], _INT64, r"Gather: axis 1 of 'x' has no elements"),
        ([2, 3, 9], _INT64, r"Gather: picking \[2\] from axis 1 of \[2, 3, 9\] is not 'y', \[2, 2, 2\]"),
        ([2, 3, 2], TensorProto.INT8, r"Gather: 'i' is int8, only int32 or int64 can be lowered"),
    ],
    ids=["axis", "scalar", "empty", "result", "dtype"],
)
def test_what_does_not_fit_is_refused(shape: list[int], kind: int, message: str) -> None:
    """Shapes that contradict one another, axes without elements and other indices are named."""
    model = _rows(None)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", _FLOAT, shape))
    model.graph.input[1].CopyFrom(helper.make_tensor_value_info("i", kind, [2]))
    with pytest.raises(ModelError, match=message):
        lower(model)
