"""What depends on noise and constants alone leaves a part, and both together compute what it did."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from onnx import TensorProto, helper, numpy_helper

from siniantrust.graph import PREPARED_PREFIX, feed_noise, load_model, noise_inputs, take_prelude

_FLOAT = TensorProto.FLOAT
_UNARY = ("Neg", "Floor", "Abs", "Relu")
_BINARY = ("Add", "Mul", "Min", "Max")


def _node(op_type: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], name=f"node {output}", **attributes)


def _fed(nodes: list[onnx.NodeProto], output: str = "y") -> onnx.ModelProto:
    """Return a model of x (n, 3), the constants k and m (3), whose noise is fed."""
    stored = {"k": [2.0, -3.0, 0.5], "m": [-1.0, 4.0, 0.25]}
    graph = helper.make_graph(
        nodes,
        "noisy",
        [helper.make_tensor_value_info("x", _FLOAT, ["n", 3])],
        [helper.make_tensor_value_info(output, _FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.asarray(values, np.float32), name) for name, values in stored.items()],
    )
    proto = load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)).proto
    feed_noise(proto, origin="model")
    return proto


def _run(proto: onnx.ModelProto, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a model on those of the values that it has as inputs."""
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_outputs()]
    found = session.run(names, {entry.name: values[entry.name] for entry in session.get_inputs()})
    return dict(zip(names, found, strict=True))


def _given(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {value.name: rng.normal(size=(5, 3)).astype(np.float32) for value in proto.graph.input}


@some.composite
def _graphs(draw: some.DrawFn) -> list[onnx.NodeProto]:
    """Return a chain of random operators on noise, constants, the input, and what was made before."""
    nodes = [_node("RandomNormalLike", "x", "u"), _node("RandomUniformLike", "x", "v", low=-1.0, high=2.0)]
    known = ["x", "u", "v", "k", "m"]
    for place in range(draw(some.integers(1, 9))):
        binary = draw(some.booleans())
        reads = [draw(some.sampled_from(known)) for _ in range(1 + binary)]
        nodes.append(_node(draw(some.sampled_from(_BINARY if binary else _UNARY)), " ".join(reads), f"v{place}"))
        known.append(f"v{place}")
    ends = [name for name in known if name.startswith("v") and name != "v"]
    return [*nodes, helper.make_node("Sum", ["x", *ends, "u"][: draw(some.integers(2, 9))], ["y"], name="end")]


@given(_graphs())
@settings(max_examples=60, deadline=None)
def test_part_and_prelude_compute_what_the_part_did(nodes: list[onnx.NodeProto]) -> None:
    """For the same drawn numbers the answers are the same to the bit, and nothing of noise alone is left."""
    whole = _fed(nodes)
    given_values = _given(whole)
    expected = _run(whole, given_values)["y"]
    prelude = take_prelude(whole)
    made = {} if prelude is None else _run(prelude, given_values)
    prepared = {PREPARED_PREFIX + name: array for name, array in made.items()}
    assert prepared.keys() == {each.name for each in noise_inputs(whole) if each.name.startswith(PREPARED_PREFIX)}
    np.testing.assert_array_equal(_run(whole, {**given_values, **prepared})["y"], expected)
    noise = {value.name for value in whole.graph.input if value.name != "x"}
    fixed = {tensor.name for tensor in whole.graph.initializer}
    for node in whole.graph.node:
        if not fixed.issuperset(node.input) and (noise | fixed).issuperset(node.input):
            assert node.op_type == "Identity"
            noise.update(node.output)
        elif fixed.issuperset(node.input):
            fixed.update(node.output)


def test_constants_go_where_they_are_read() -> None:
    """What only the prelude reads leaves the part, what both read is in both, and so is a number that both read."""
    part = _fed(
        [
            _node("RandomNormalLike", "x", "u"),
            _node("Mul", "u k", "a"),
            _node("Add", "a m", "b"),
            helper.make_node("Sum", ["x", "b", "m", "u"], ["y"], name="end"),
        ]
    )
    prelude = take_prelude(part)
    assert prelude is not None
    drawn = "siniantrust.noise.normal:0.0:1.0:u"
    assert [value.name for value in part.graph.input] == ["x", drawn, f"{PREPARED_PREFIX}b"]
    assert [tensor.name for tensor in part.graph.initializer] == ["m"]
    assert [node.name for node in part.graph.node] == ["node u", "node b", "end"]
    assert [value.name for value in prelude.graph.input] == [drawn]
    assert {tensor.name for tensor in prelude.graph.initializer} == {"k", "m"}
    assert [value.name for value in prelude.graph.output] == ["b"]


def test_a_value_that_leaves_is_prepared_too() -> None:
    """Where noise alone is the part's answer, all of it is made beforehand."""
    part = _fed([_node("RandomNormalLike", "x", "u"), _node("Mul", "u k", "y")])
    given_values = _given(part)
    prelude = take_prelude(part)
    assert prelude is not None
    made = _run(prelude, given_values)["y"]
    assert [node.op_type for node in part.graph.node] == ["Identity"]
    np.testing.assert_array_equal(_run(part, {f"{PREPARED_PREFIX}y": made, **given_values})["y"], made)


def _branches() -> dict[str, onnx.GraphProto]:
    ends = [helper.make_tensor_value_info("out", _FLOAT, ["n", 3])]
    return {
        f"{name}_branch": helper.make_graph([_node(op, "u", "out")], name, [], ends)
        for name, op in (("then", "Relu"), ("else", "Neg"))
    }


@pytest.mark.parametrize(
    "nodes",
    [
        [_node("Add", "x u", "y")],
        [
            _node("Constant", "", "c", value=helper.make_tensor("t", 9, [], [True])),
            _node("If", "c", "y", **_branches()),
        ],
        [
            helper.make_node("Split", ["u"], ["a", "b", "d"], axis=1, name="cut"),
            helper.make_node("Concat", ["d", "b", "a"], ["c"], axis=1, name="join"),
            _node("Add", "x c", "y"),
        ],
        [
            _node("NonZero", "u", "a"),
            _node("Cast", "a", "b", to=1),
            _node("ReduceSum", "b", "c"),
            _node("Add", "x c", "y"),
        ],
    ],
    ids=["nothing to move", "a graph inside", "several outputs", "an undeclared shape"],
)
def test_what_cannot_be_moved_stays(nodes: list[onnx.NodeProto]) -> None:
    """A part is left as it is where nothing can be moved out of it."""
    part = _fed([_node("RandomNormalLike", "x", "u"), *nodes])
    before = part.SerializeToString(deterministic=True)
    assert take_prelude(part) is None
    assert part.SerializeToString(deterministic=True) == before


def test_what_only_gave_a_draw_its_shape_is_not_computed() -> None:
    """Nodes that nothing else reads leave with the random operator that read them, and others stay."""
    part = _fed(
        [
            _node("Neg", "x", "a"),
            _node("Abs", "a", "b"),
            _node("RandomNormalLike", "b", "u"),
            helper.make_node("Sum", ["a", "u"], ["y"], name="end"),
        ]
    )
    assert [node.op_type for node in part.graph.node] == ["Neg", "Identity", "Sum"]
