"""Random operators become inputs of the standard law, and what cannot is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from siniantrust.errors import ModelError
from siniantrust.graph import NOISE_PREFIX, feed_noise, load_model, noise_inputs, unfed_noise

_FLOAT = TensorProto.FLOAT


def _model(*nodes: onnx.NodeProto, outputs: tuple[str, ...] = ("y",)) -> onnx.ModelProto:
    """Return a loaded model of input x (n, 3), so that types are declared as the stages declare them."""
    graph = helper.make_graph(
        list(nodes),
        "noisy",
        [helper.make_tensor_value_info("x", _FLOAT, ["n", 3])],
        [helper.make_tensor_value_info(name, _FLOAT, ["n", 3]) for name in outputs],
    )
    return load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)).proto


def _fed(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    proto = _model(*nodes)
    feed_noise(proto, origin="model")
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _run(proto: onnx.ModelProto, **inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, inputs)[0]
    return found


@pytest.mark.parametrize(
    ("operator", "attributes", "law"),
    [
        ("RandomNormalLike", {}, "normal:0.0:1.0"),
        ("RandomNormalLike", {"mean": 3.0, "scale": 2.0, "seed": 4.0}, "normal:3.0:2.0"),
        ("RandomUniformLike", {}, "uniform:0.0:1.0"),
        ("RandomUniformLike", {"low": -1.0, "high": 3.0}, "uniform:-1.0:4.0"),
    ],
)
def test_a_random_operator_becomes_an_input(operator: str, attributes: dict[str, Any], law: str) -> None:
    """The input's name says the operator's law, and what is given there takes the place of what it drew."""
    proto = _fed(
        helper.make_node(operator, ["x"], ["noise"], name="draw", **attributes),
        helper.make_node("Neg", ["noise"], ["y"], name="end"),
    )
    (reserved,) = noise_inputs(proto)
    assert (reserved.name, reserved.shape, reserved.batch_axis) == (f"{NOISE_PREFIX}{law}:noise", (1, 3), 0)
    assert "draw" in {node.name for node in proto.graph.node}
    given = np.full((2, 3), 0.25, np.float32)
    found = _run(proto, **{"x": np.zeros((2, 3), np.float32), reserved.name: given})
    np.testing.assert_array_equal(found, -given)


def test_the_operators_with_a_shape_become_inputs() -> None:
    """RandomNormal has its shape as an attribute."""
    proto = _fed(
        helper.make_node("RandomNormal", [], ["noise"], name="draw", shape=[1, 3]),
        helper.make_node("Add", ["x", "noise"], ["y"], name="end"),
    )
    assert [each.shape for each in noise_inputs(proto)] == [(1, 3)]


def test_a_model_without_noise_stays_as_it_is() -> None:
    """Nothing changes where nothing is drawn."""
    proto = _model(helper.make_node("Neg", ["x"], ["y"], name="only"))
    before = proto.SerializeToString(deterministic=True)
    feed_noise(proto, origin="model")
    assert proto.SerializeToString(deterministic=True) == before


def _branching() -> onnx.NodeProto:
    ends = [helper.make_tensor_value_info("out", _FLOAT, ["n", 3])]
    draws = helper.make_graph([helper.make_node("RandomNormalLike", ["x"], ["out"], name="inner")], "a", [], ends)
    plain = helper.make_graph([helper.make_node("Identity", ["x"], ["out"], name="other")], "b", [], ends)
    return helper.make_node("If", ["c"], ["y"], name="branch", then_branch=draws, else_branch=plain)


@pytest.mark.parametrize(
    ("nodes", "name", "match"),
    [
        ([helper.make_node("Bernoulli", ["x"], ["y"], name="coin")], "coin", "Bernoulli"),
        (
            [
                helper.make_node("Constant", [], ["c"], name="yes", value=helper.make_tensor("t", 9, [], [True])),
                helper.make_node("Dropout", ["x", "", "c"], ["y"], name="drop"),
            ],
            "drop",
            "Dropout",
        ),
        (
            [
                helper.make_node("ReduceMax", ["x"], ["m"], name="max", keepdims=0),
                helper.make_node("Cast", ["m"], ["c"], name="cast", to=TensorProto.BOOL),
                _branching(),
            ],
            "branch",
            "RandomNormalLike inside its body",
        ),
    ],
)
def test_what_cannot_be_fed_is_named(nodes: list[onnx.NodeProto], name: str, match: str) -> None:
    """Other random operators, and any inside a body, are refused by the node's name."""
    proto = _model(*nodes)
    assert set(unfed_noise(proto)) == {name}
    with pytest.raises(ModelError, match=f"model: node '{name}': .*{match}"):
        feed_noise(proto, origin="model")


def test_an_unknown_shape_is_refused() -> None:
    """Noise whose size is not declared cannot be drawn beforehand."""
    proto = _model(
        helper.make_node("RandomNormalLike", ["x"], ["noise"], name="draw"),
        helper.make_node("Add", ["x", "noise"], ["y"], name="end"),
    )
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    assert "not known beforehand" in unfed_noise(proto)["draw"]
