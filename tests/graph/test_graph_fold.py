"""Folding: smaller graphs that compute the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graph_models import model_of, random_inputs, random_models, run
from hypothesis import given, settings
from onnx import TensorProto, helper, numpy_helper

from siniantrust.graph import load_model


def operators(proto: onnx.ModelProto) -> list[str]:
    """Return the operators left after loading."""
    return [node.op_type for node in load_model(proto).nodes]


def constant(name: str, value: np.ndarray) -> onnx.NodeProto:
    """Build a Constant node."""
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))


@settings(max_examples=100, deadline=None)
@given(random_models(shuffled=False))
def test_folding_does_not_change_outputs(proto: onnx.ModelProto) -> None:
    """A loaded model gives bit for bit what the file gives."""
    arrays = random_inputs(proto, batch=2)
    expected, found = run(proto, arrays), run(load_model(proto).proto, arrays)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_constant_chain_becomes_one_initialiser() -> None:
    """What depends on constants alone is evaluated, and only the result is kept."""
    nodes = [
        constant("c", np.arange(4, dtype=np.float32)),
        helper.make_node("Exp", ["c"], ["e"]),
        helper.make_node("Add", ["e", "k"], ["s"]),
        helper.make_node("Mul", ["x", "s"], ["y"]),
    ]
    proto = model_of(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, {"k": np.ones(4, np.float32)})
    model = load_model(proto)
    assert [node.op_type for node in model.nodes] == ["Mul"]
    assert [tensor.name for tensor in model.proto.graph.initializer] == ["s"]
    stored = numpy_helper.to_array(model.proto.graph.initializer[0])
    np.testing.assert_allclose(stored, np.exp(np.arange(4)) + 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("value_float", 2.0), ("value_floats", [1.0, 2.0]), ("value_int", 3), ("value_ints", [1, 2])],
)
def test_every_form_of_constant_is_stored(attribute: str, value: float | list[float]) -> None:
    """Scalars and lists in attributes become tensors of their type."""
    node = helper.make_node("Constant", [], ["c"])
    node.attribute.append(helper.make_attribute(attribute, value))
    nodes = [
        node,
        helper.make_node("Cast", ["c"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "f"], ["y"]),
    ]
    model = load_model(model_of(nodes, {"x": ["N", 2]}, {"y": ["N", 2]}))
    assert [each.op_type for each in model.nodes] == ["Add"]
    (stored,) = model.proto.graph.initializer
    assert stored.data_type == TensorProto.FLOAT
    np.testing.assert_array_equal(numpy_helper.to_array(stored), np.array(value, np.float32))


def test_random_nodes_are_not_folded() -> None:
    """A random source stays a source."""
    nodes = [
        helper.make_node("RandomNormal", [], ["r"], shape=[1, 4]),
        helper.make_node("Tanh", ["r"], ["t"]),
        helper.make_node("Add", ["x", "t"], ["y"]),
    ]
    assert operators(model_of(nodes, {"x": ["N", 4]}, {"y": ["N", 4]})) == ["RandomNormal", "Tanh", "Add"]


def test_huge_results_are_not_folded() -> None:
    """A constant that would blow the model up stays an operator."""
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["z"]), helper.make_node("Add", ["x", "z"], ["y"])]
    shape = {"s": np.array([1, 17 << 20], np.int64)}
    wide = 17 << 20
    assert operators(model_of(nodes, {"x": [1, wide]}, {"y": [1, wide]}, shape)) == ["ConstantOfShape", "Add"]


def test_quantised_weights_stay_behind_their_operator() -> None:
    """DequantizeLinear of a weight is a pattern that runtimes look for."""
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    constants: dict[str, np.ndarray] = {"q": np.ones((4, 4), np.uint8), "s": np.array(0.1, np.float32)}
    assert operators(model_of(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, constants)) == ["DequantizeLinear", "MatMul"]


def test_identities_and_dropouts_are_removed() -> None:
    """Nodes that do nothing go, and inputs and outputs keep their names."""
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Dropout", ["b", "ratio", "off"], ["c"]),
        helper.make_node("Dropout", ["c"], ["d", "mask"]),
        helper.make_node("Tanh", ["d"], ["e"]),
        helper.make_node("Identity", ["e"], ["f"]),
        helper.make_node("Identity", ["f"], ["y"]),
    ]
    constants: dict[str, np.ndarray] = {"ratio": np.array(0.5, np.float32), "off": np.array(False)}
    model = load_model(model_of(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, constants))
    assert [node.op_type for node in model.nodes] == ["Relu", "Tanh"]
    assert model.outputs[0].name == "y"
    assert not model.proto.graph.initializer


@pytest.mark.parametrize(
    ("opset", "attributes", "inputs", "kept"),
    [
        (18, {}, ["b", "ratio", "on"], True),
        (18, {}, ["b", "ratio"], False),
        (10, {}, ["b"], False),
        (6, {"is_test": 1}, ["b"], False),
        (6, {}, ["b"], True),
    ],
)
def test_dropout_in_training_stays(opset: int, attributes: dict[str, int], inputs: list[str], *, kept: bool) -> None:
    """Only a Dropout that does nothing at inference is removed; the opset says how that is written."""
    dropout = helper.make_node("Dropout", inputs, ["c"])
    dropout.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    nodes = [helper.make_node("Relu", ["x"], ["b"]), dropout, helper.make_node("Tanh", ["c"], ["y"])]
    constants: dict[str, np.ndarray] = {"ratio": np.array(0.5, np.float32), "on": np.array(True)}
    proto = model_of(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, constants, opset=opset)
    assert ("Dropout" in operators(proto)) is kept


def test_identity_between_input_and_output_stays() -> None:
    """Where both names are needed, the node is."""
    nodes = [
        helper.make_node("Identity", ["x"], ["y"]),
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("Identity", ["a"], ["c"]),
    ]
    proto = model_of(nodes, {"x": ["N", 4]}, {"y": ["N", 4], "b": ["N", 4], "c": ["N", 4]})
    model = load_model(proto)
    assert sorted(node.op_type for node in model.nodes) == ["Identity", "Identity", "Relu"]
    arrays = random_inputs(proto, batch=2)
    for name, value in run(proto, arrays).items():
        np.testing.assert_array_equal(run(model.proto, arrays)[name], value)


def test_identity_that_a_branch_reads_stays() -> None:
    """Names inside subgraphs are not rewritten."""
    value = helper.make_tensor_value_info("o", TensorProto.FLOAT, [1, 2])
    branch = helper.make_graph([helper.make_node("Tanh", ["i"], ["o"])], "b", [], [value])
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Identity", ["a"], ["i"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
    ]
    proto = model_of(nodes, {"x": [1, 2]}, {"y": [1, 2]}, {"c": np.array(True)})
    assert operators(proto) == ["Relu", "Identity", "If"]


def test_unreachable_nodes_and_weights_are_removed() -> None:
    """What no output needs is neither run nor stored."""
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Add", ["x", "w"], ["unused"])]
    model = load_model(model_of(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, {"w": np.ones(4, np.float32)}))
    assert [node.op_type for node in model.nodes] == ["Relu"]
    assert not model.proto.graph.initializer


def test_shape_of_a_fixed_value_is_a_constant() -> None:
    """Shape arithmetic vanishes where the shape does not follow the batch, and stays where it does."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Shape", ["a"], ["s"]),
        helper.make_node("Slice", ["s", "one", "two"], ["t"]),
        helper.make_node("Concat", ["minus", "t"], ["u"], axis=0),
        helper.make_node("Reshape", ["a", "u"], ["y"]),
    ]
    constants = {"one": np.array([1]), "two": np.array([2]), "minus": np.array([-1])}
    proto = model_of(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, constants)
    assert "Shape" in operators(proto)
    fixed = load_model(proto, dims={"N": 3})
    assert [node.op_type for node in fixed.nodes] == ["Relu", "Reshape"]
    arrays = random_inputs(proto, batch=3)
    np.testing.assert_array_equal(run(fixed.proto, arrays)["y"], run(proto, arrays)["y"])


def test_shapes_are_known_behind_what_inference_cannot_follow() -> None:
    """An Expand to a shape from Where and Equal, as exporters write it, does not end shape inference."""
    nodes = [
        helper.make_node("Shape", ["x"], ["n"], start=0, end=1),
        helper.make_node("Concat", ["n", "minus", "four"], ["wanted"], axis=0),
        helper.make_node("Equal", ["wanted", "minus"], ["open"]),
        helper.make_node("Where", ["open", "one", "wanted"], ["shape"]),
        helper.make_node("Expand", ["token", "shape"], ["tokens"]),
        helper.make_node("Concat", ["tokens", "x"], ["all"], axis=1),
        helper.make_node("MatMul", ["all", "w"], ["y"]),
    ]
    constants = {
        "minus": np.array([-1]),
        "four": np.array([4]),
        "one": np.array([1]),
        "token": np.ones((1, 1, 4), np.float32),
        "w": np.ones((4, 2), np.float32),
    }
    model = load_model(model_of(nodes, {"x": ["N", 3, 4]}, {"y": ["N", 4, 2]}, constants))
    assert (model.tensors["all"].shape, model.tensors["all"].batch_axis) == ((1, 4, 4), 0)
    assert model.nodes[-1].flops == 2 * 4 * 4 * 2
