"""Masks one behind the other, what they say of themselves, and the bound on unbiased attackers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from siniantrust.graph import Cut, Model, enumerate_cuts, load_model
from siniantrust.masking import MaskError, MaskSpec, apply_masks, calibrate, parse_mask, read_records

SIDE = 8


def _model() -> Model:
    """Return a convolution c without activation, and a dense layer."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [
            numpy_helper.from_array(rng.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32), "w"),
            numpy_helper.from_array(rng.normal(0, 0.1, (4 * SIDE * SIDE, 5)).astype(np.float32), "v"),
        ],
    )
    return load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def _cut(model: Model, tensor: str) -> Cut:
    return next(cut for cut in enumerate_cuts(model).cuts if cut.tensors == (tensor,))


def _inputs(items: int = 40) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).normal(size=(items, 3, SIDE, SIDE)).astype(np.float32)}


def _masked(*texts: str) -> tuple[Model, Cut]:
    model = _model()
    return apply_masks(model, _cut(model, "c"), [parse_mask(text) for text in texts], seed=0, inputs=_inputs())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gaussian", MaskSpec("gaussian")),
        ("gaussian:strength=0.5", MaskSpec("gaussian", 0.5)),
        ("randomised_response:bits=3,strength=1e-1", MaskSpec("randomised_response", 0.1, {"bits": 3.0})),
    ],
)
def test_a_mask_is_read(text: str, expected: MaskSpec) -> None:
    """A name, and parameters behind a colon."""
    assert parse_mask(text) == expected


@pytest.mark.parametrize("text", ["", ":strength=1", "gaussian:strength", "gaussian:strength=x", "g:a=1,a=2", "g:=1"])
def test_other_text_is_refused(text: str) -> None:
    """What is no name with numbers is named."""
    with pytest.raises(MaskError, match="expected NAME or NAME:PARAMETER=NUMBER"):
        parse_mask(text)


def test_masks_stand_one_behind_the_other() -> None:
    """Pooling makes less cross, noise is calibrated on what is pooled and lies over it, and answers keep shape."""
    model, cut = _masked("pooling", "gaussian:strength=0.5")
    assert cut.tensors == ("c_masked_masked",)
    assert model.tensors["c_masked_masked"].shape == (1, 4, SIDE // 2, SIDE // 2)
    assert model.outputs == _model().outputs
    pooled, noisy = read_records(model.proto)
    assert (pooled.mask, pooled.strength, pooled.facts["crossing_elements"]) == ("pooling", 2.0, 4 * SIDE * SIDE // 4)
    plain = read_records(_masked("gaussian:strength=0.5")[0].proto)[0]
    assert float(noisy.facts["noise_std"]) < 0.9 * float(plain.facts["noise_std"])


def test_what_a_mask_says_survives_the_file() -> None:
    """Records are in the written model, in the order of the masks."""
    model, _ = _masked("quantise:strength=0.5", "laplace")
    again = load_model(onnx.ModelProto.FromString(model.proto.SerializeToString()))
    assert [record.mask for record in read_records(again.proto)] == ["quantise", "laplace"]


def test_a_record_of_another_form_is_refused() -> None:
    """Metadata that only looks like ours is an error."""
    proto = _model().proto
    proto.metadata_props.add(key="siniantrust.mask.c", value="{}")
    with pytest.raises(MaskError, match=r"'siniantrust\.mask\.c' is no record of a mask"):
        read_records(proto)


@pytest.mark.parametrize(("name", "information"), [("gaussian", 1.0), ("laplace", 2.0)])
def test_the_bound_is_that_of_the_jacobian(name: str, information: float) -> None:
    """For a linear part the bound is d / Tr(J^T J) times the noise's variance, half of that for Laplace noise."""
    model = _model()
    record = read_records(_masked(f"{name}:strength=0.7")[0].proto)[0]
    weights = numpy_helper.to_array(next(each for each in model.proto.graph.initializer if each.name == "w"))
    # Every weight reads each place but those that padding cuts off.
    reads = np.array([[(SIDE - abs(row)) * (SIDE - abs(column)) for column in (-1, 0, 1)] for row in (-1, 0, 1)])
    trace = float((np.square(weights) * reads).sum())
    expected = 3 * SIDE * SIDE * float(record.facts["noise_std"]) ** 2 / (information * trace)
    assert record.facts["unbiased_mse_bound"] == pytest.approx(expected, rel=0.1)


def test_an_unbiased_attacker_is_no_better_than_the_bound() -> None:
    """Least squares, the best unbiased estimate from a linear part with Gaussian noise, errs at least as much."""
    model = _model()
    record = read_records(_masked("gaussian:strength=0.3")[0].proto)[0]
    noise_std, bound = (float(record.facts[key]) for key in ("noise_std", "unbiased_mse_bound"))
    units = np.eye(3 * SIDE * SIDE, dtype=np.float32).reshape(-1, 3, SIDE, SIDE)
    columns = [calibrate(model, _cut(model, "c"), {"x": part})["c"] for part in np.array_split(units, 4)]
    jacobian = np.concatenate(columns).reshape(len(units), -1).T
    error = noise_std**2 * np.trace(np.linalg.pinv(jacobian.T @ jacobian)) / len(units)
    assert error > bound


def test_behind_random_masks_no_bound_is_claimed() -> None:
    """The bound is for noise on what the model computes, and is not given where another mask drew before."""
    first, second = read_records(_masked("dropout", "gaussian")[0].proto)
    assert "unbiased_mse_bound" not in {*first.facts, *second.facts}


def test_without_items_nothing_is_calibrated() -> None:
    """An input without items is named."""
    model = _model()
    with pytest.raises(MaskError, match="no items of input 'x'"):
        apply_masks(model, _cut(model, "c"), [MaskSpec("gaussian")], seed=0, inputs={})
