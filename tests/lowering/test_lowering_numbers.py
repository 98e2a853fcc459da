"""Rounding, casts and products of batches, lowered: at the ends of what numbers can be, and beyond."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lowering_host import SANITISERS, build_model, run_lowered, run_reference
from onnx import TensorProto, helper

from siniantrust.errors import ModelError
from siniantrust.lowering import lower, unsupported

_FLOAT = TensorProto.FLOAT
_INTEGERS = np.array([0, 1, -1, 7, 2**24 + 1, -(2**24) - 1, 2**31 - 1, -(2**31)])
_NUMBERS = {
    "float32": np.array([0.0, -0.0, 0.99, -0.99, 1.5, -1.5, 2**23 + 1, 2.0**30, -(2.0**31)], np.float32),
    "int32": _INTEGERS.astype(np.int32),
    "int64": _INTEGERS,
}
_KINDS = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32, "int64": TensorProto.INT64}
_UNEQUAL = [(source, target) for source in _KINDS for target in _KINDS if source != target]


def _cast(x: np.ndarray, target: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return what the lowered operator gives, and what ONNX Runtime gives."""
    node = helper.make_node("Cast", ["x"], ["y"], to=_KINDS[target])
    shape: list[int | str] = [len(x)]
    model = build_model([node], {"x": (_KINDS[str(x.dtype)], shape)}, {"y": (_KINDS[target], shape)})
    return run_lowered(model, {"x": x}, folder, *SANITISERS)["y"], run_reference(model, {"x": x})["y"]


def test_floor_equals_onnx_runtime_bit_by_bit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Zeros keep their sign; halves, subnormals, the last fractions, large numbers and NaN come out right."""
    ends = [0.0, 0.5, 1.0, 1.5, 1e-45, 8388607.5, 8388608.0, 2.0**31, 3e9, 3.4e38, np.inf]
    below_one, above_one = np.nextafter(np.float32(1), np.float32(0)), np.nextafter(np.float32(1), np.float32(2))
    x = np.array([*ends, *(-np.array(ends)), below_one, -below_one, above_one, -above_one, np.nan], np.float32)
    node = helper.make_node("Floor", ["x"], ["y"])
    model = build_model([node], {"x": (_FLOAT, [len(x)])}, {"y": (_FLOAT, [len(x)])})
    found = run_lowered(model, {"x": x}, tmp_path, *SANITISERS)["y"]
    expected = run_reference(model, {"x": x})["y"]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found[:-1]), np.signbit(expected[:-1]))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("source", "target"), _UNEQUAL, ids=[f"{source}-{target}" for source, target in _UNEQUAL])
def test_casts_equal_onnx_runtime(tmp_path: Path, capfd: pytest.CaptureFixture[str], source: str, target: str) -> None:
    """Numbers that have a place in the target go there towards zero, or to the nearest float."""
    found, expected = _cast(_NUMBERS[source], target, tmp_path)
    np.testing.assert_array_equal(found, expected)
    assert capfd.readouterr().err == ""


def test_integers_that_do_not_fit_keep_their_lower_half(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """From 64 to 32 bits the upper half is dropped, as ONNX defines it."""
    x = np.array([2**31, -(2**31) - 1, 2**32 + 5, 2**63 - 1, -(2**63)])
    found, expected = _cast(x, "int32", tmp_path)
    np.testing.assert_array_equal(found, expected)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("target", ["int32", "int64"])
def test_floats_that_do_not_fit_become_the_nearest_integer(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], target: str
) -> None:
    """Infinities and numbers beyond the target are its ends, NaN is 0, and C leaves none of it undefined."""
    bits = np.iinfo(target)
    most, least = float(bits.max), float(bits.min)
    inside = np.nextafter(np.float32(most), np.float32(0))
    above, below = [np.inf, 3.4e38, 1.25 * most, most], [-np.inf, -3.4e38, 1.25 * least, least]
    x = np.array([np.nan, inside, *above, *below], np.float32)
    ends = [0, int(inside), *([bits.max] * 4), *([bits.min] * 4)]
    np.testing.assert_array_equal(_cast(x, target, tmp_path)[0], np.array(ends, target))
    assert capfd.readouterr().err == ""


def test_a_wider_result_has_a_place_of_its_own(tmp_path: Path) -> None:
    """A cast to 64 bits does not take over the place of its input, which is half as large."""
    nodes = [
        helper.make_node("Floor", ["x"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["wide"], to=TensorProto.INT64),
        helper.make_node("Cast", ["wide"], ["y"], to=_FLOAT),
    ]
    model = build_model(nodes, {"x": (_FLOAT, [40])}, {"y": (_FLOAT, [40])})
    assert lower(model).arena_bytes >= 40 * (4 + 8)
    x = np.linspace(-9, 9, 40, dtype=np.float32)
    np.testing.assert_array_equal(run_lowered(model, {"x": x}, tmp_path)["y"], np.floor(x))


def test_a_cast_to_the_same_dtype_is_a_view() -> None:
    """A cast that changes nothing costs neither memory nor a call, whatever the dtype."""
    nodes = [
        helper.make_node("Cast", ["x"], ["same"], to=TensorProto.DOUBLE),
        helper.make_node("Identity", ["same"], ["y"]),
    ]
    model = build_model(nodes, {"x": (TensorProto.DOUBLE, [8])}, {"y": (TensorProto.DOUBLE, [8])})
    lowered = lower(model)
    assert lowered.arena_bytes == 0
    assert lowered.source.count("copy_blocks(1, 64") == 1


def test_other_dtypes_are_refused_by_name() -> None:
    """A cast to or from what has no kernel names the value and its dtype."""
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.DOUBLE, name="cast")
    model = build_model([node], {"x": (_FLOAT, [2])}, {"y": (TensorProto.DOUBLE, [2])})
    assert unsupported(model) == {"cast": "Cast: 'y' is float64, only float32 or int32 or int64 can be lowered"}


_BATCHES = [
    ([16, 32], [1, 32, 32]),
    ([1, 1, 3, 4], [4, 2]),
    ([1, 3, 4], [7, 4, 2]),
    ([3, 4], [2, 5, 4, 2]),
    ([2, 1, 3, 4], [1, 5, 4, 2]),
    ([3, 1, 2, 1, 1, 4], [3, 2, 1, 5, 4, 1]),
    ([4], [3, 4, 2]),
    ([2, 3, 4], [4]),
    ([4], [4]),
]
_BATCH_IDS = ["x".join(map(str, a)) + "-" + "x".join(map(str, b)) for a, b in _BATCHES]


@pytest.mark.parametrize(("a", "b"), _BATCHES, ids=_BATCH_IDS)
def test_products_broadcast_their_batches(tmp_path: Path, a: list[int | str], b: list[int | str]) -> None:
    """Batches of matrices, and vectors, are multiplied as numpy multiplies them, floats and integers."""
    random = np.random.default_rng(0)
    left, right = (random.integers(-9, 9, size=tuple(map(int, shape))) for shape in (a, b))
    y: list[int | str] = list((left @ right).shape)
    nodes = [
        helper.make_node("MatMul", ["a", "b"], ["y"]),
        helper.make_node("MatMulInteger", ["i", "j"], ["z"]),
    ]
    small = TensorProto.INT8
    ports = {"a": (_FLOAT, a), "b": (_FLOAT, b), "i": (small, a), "j": (small, b)}
    model = build_model(nodes, ports, {"y": (_FLOAT, y), "z": (TensorProto.INT32, y)})
    floats = {"a": left.astype(np.float32), "b": right.astype(np.float32)}
    found = run_lowered(model, floats | {"i": left.astype(np.int8), "j": right.astype(np.int8)}, tmp_path)
    np.testing.assert_array_equal(found["y"], left @ right)
    np.testing.assert_array_equal(found["z"], left @ right)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([2, 5], [4, 3], r"a product of \[2, 5\] and \[4, 3\] is not 'y', \[2, 3\]"),
        ([2, 2, 5], [3, 5, 3], r"a product of \[2, 2, 5\] and \[3, 5, 3\] is not 'y', \[2, 3\]"),
        ([4, 5], [5, 3], r"a product of \[4, 5\] and \[5, 3\] is not 'y', \[2, 3\]"),
        ([], [5, 3], r"a product of \[1\] and \[5, 3\] is not 'y', \[2, 3\]"),
    ],
    ids=["sums", "batches", "result", "scalar"],
)
def test_shapes_that_do_not_fit_are_refused(a: list[int], b: list[int], message: str) -> None:
    """A product whose declared shapes contradict one another would read or write beside them: it is refused."""
    model = build_model(
        [helper.make_node("MatMul", ["a", "b"], ["y"], name="product")],
        {"a": (_FLOAT, [2, 5]), "b": (_FLOAT, [5, 3])},
        {"y": (_FLOAT, [2, 3])},
    )
    for entry, shape in zip(model.graph.input, (a, b), strict=True):
        entry.CopyFrom(helper.make_tensor_value_info(entry.name, _FLOAT, shape))
    with pytest.raises(ModelError, match=message):
        lower(model)


def test_a_vector_has_one_column_whatever_its_length() -> None:
    """Zero points for each element of a vector on the right are refused: they would be those of one column."""
    small, zeros = TensorProto.INT8, np.zeros(4, np.int8)
    model = build_model(
        [helper.make_node("MatMulInteger", ["a", "b", "", "zeros"], ["y"], name="product")],
        {"a": (small, [2, 4]), "b": (small, [4])},
        {"y": (TensorProto.INT32, [2])},
        {"zeros": zeros},
    )
    assert "scale and zero point of 'b' have shapes [4]: neither one nor 1" in unsupported(model)["product"]


def test_more_axes_than_kernels_have_loops_are_refused() -> None:
    """A result of seven axes is named, for sums and for products."""
    shape: list[int | str] = [1, 1, 1, 1, 1, 2, 2]
    nodes = [
        helper.make_node("MatMul", ["x", "x"], ["y"], name="product"),
        helper.make_node("Add", ["x", "x"], ["z"], name="sum"),
    ]
    model = build_model(nodes, {"x": (_FLOAT, shape)}, {"y": (_FLOAT, shape), "z": (_FLOAT, shape)})
    assert unsupported(model) == {
        "product": "MatMul: 'y' has 7 axes, at most 6 can be lowered",
        "sum": "Add: 'z' has 7 axes, at most 6 can be lowered",
    }
