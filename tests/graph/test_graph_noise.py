"""Random operators become inputs of the standard law, and what cannot is named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from scipy import stats

from siniantrust.errors import ModelError
from siniantrust.graph import NOISE_PREFIX, feed_noise, load_model, noise_inputs, unfed_noise
from siniantrust.trust.process._noise import NoiseSource, law_of

_FLOAT = TensorProto.FLOAT


def _model(
    *nodes: onnx.NodeProto, outputs: tuple[str, ...] = ("y",), stored: Sequence[onnx.TensorProto] = ()
) -> onnx.ModelProto:
    """Return a loaded model of input x (n, 3), so that types are declared as the stages declare them."""
    graph = helper.make_graph(
        list(nodes),
        "noisy",
        [helper.make_tensor_value_info("x", _FLOAT, ["n", 3])],
        [helper.make_tensor_value_info(name, _FLOAT, ["n", 3]) for name in outputs],
        list(stored),
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


def _uniform(name: str, low: float = 0.0) -> onnx.NodeProto:
    return helper.make_node("RandomUniformLike", ["x"], [name], name=f"draw {name}", low=low, high=1.0)


def _constant(name: str, value: float) -> onnx.TensorProto:
    return helper.make_tensor(name, _FLOAT, [], [value])


def _laplace(low: float = 1e-7) -> list[onnx.NodeProto]:
    return [
        _uniform("u", low),
        _uniform("v", low),
        helper.make_node("Log", ["u"], ["lu"], name="log u"),
        helper.make_node("Log", ["v"], ["lv"], name="log v"),
        helper.make_node("Sub", ["lu", "lv"], ["drawn"], name="difference"),
        helper.make_node("Mul", ["drawn", "k"], ["noise"], name="scaled"),
        helper.make_node("Add", ["x", "noise"], ["y"], name="end"),
    ]


def _kept(share: str = "p") -> list[onnx.NodeProto]:
    return [
        _uniform("u"),
        helper.make_node("Add", ["u", share], ["above"], name="share"),
        helper.make_node("Floor", ["above"], ["drawn"], name="floor"),
        helper.make_node("Mul", ["drawn", "k"], ["noise"], name="scaled"),
        helper.make_node("Mul", ["x", "noise"], ["y"], name="end"),
    ]


def _stored(*nodes: onnx.NodeProto, k: float = 3.0, p: float = 0.75) -> onnx.ModelProto:
    return _model(*nodes, stored=[_constant("k", k), _constant("p", p)])


@pytest.mark.parametrize(("nodes", "law"), [(_laplace(), "laplace:0.0:3.0"), (_kept(), "bernoulli:0.75:3.0")])
def test_what_is_made_of_drawn_numbers_alone_is_drawn_at_once(nodes: list[onnx.NodeProto], law: str) -> None:
    """Logarithms, floors and products of noise leave the graph: one operator with one reserved input is left."""
    proto = _stored(*nodes)
    feed_noise(proto, origin="model")
    onnx.checker.check_model(proto, full_check=True)
    assert [each.name for each in noise_inputs(proto)] == [f"{NOISE_PREFIX}{law}:noise"]
    assert [node.op_type for node in proto.graph.node] == ["Identity", nodes[-1].op_type]
    given = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = _run(proto, **{"x": np.full((2, 3), 2, np.float32), f"{NOISE_PREFIX}{law}:noise": given})
    np.testing.assert_array_equal(found, given + 2 if law.startswith("laplace") else given * 2)


@pytest.mark.parametrize(("nodes", "k"), [(_laplace(), 3.0), (_kept(), 1 / 0.75)])
def test_the_law_is_that_of_the_operators(nodes: list[onnx.NodeProto], k: float) -> None:
    """What a runtime computes of its own even numbers and what an enclave draws at once cannot be told apart."""
    proto = _stored(*nodes, k=k)
    items = {"x": np.ones((20_000, 3), np.float32)}
    computed = _run(proto, **items)
    feed_noise(proto, origin="model")
    (reserved,) = noise_inputs(proto)
    law = law_of(reserved.name)
    drawn = _run(proto, **items, **{reserved.name: NoiseSource().draw(law, (20_000, 3), "float32")})
    assert stats.ks_2samp(computed.ravel(), drawn.ravel()).pvalue > 1e-4


@pytest.mark.parametrize(
    ("nodes", "drawn"),
    [
        (_laplace(low=0.01), 2),
        ([*_laplace()[:-1], helper.make_node("Sum", ["x", "noise", "lu"], ["y"], name="end")], 2),
        ([*_laplace()[:4], helper.make_node("Sub", ["lu", "x"], ["drawn"], name="other"), *_laplace()[5:]], 1),
        (_kept(share="x"), 1),
        (_kept(share="k"), 1),
        ([*_kept()[:-1], helper.make_node("Sum", ["x", "noise", "u"], ["y"], name="end")], 1),
    ],
    ids=["bounded", "a part read twice", "of the input", "a share from outside", "no share", "the number read twice"],
)
def test_what_has_no_law_of_its_own_is_computed(nodes: list[onnx.NodeProto], drawn: int) -> None:
    """Where more than the law's own numbers goes in, or something else reads them, they are drawn as they were."""
    proto = _stored(*nodes)
    feed_noise(proto, origin="model")
    assert [each.name.split(".")[2].split(":")[0] for each in noise_inputs(proto)] == ["uniform"] * drawn


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
