"""Linear masks that are folded into weights: the same values, with less work before the cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from onnx import TensorProto, helper, numpy_helper

from siniantrust.graph import Cut, Model, enumerate_cuts, load_model, prefix_nodes
from siniantrust.masking import apply_mask
from siniantrust.masking._fold import fold_linear_masks

SIDE = 6


def _model(*between: str, bias: bool = True, groups: int = 1, seed: int = 0) -> Model:
    """Return a convolution c of eight channels, per-channel operators, and a dense layer; the last value is t."""
    rng = np.random.default_rng(seed)
    names = ["c", *(f"v{index}" for index in range(len(between)))]
    names[-1] = "t"
    windows: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node(
            "Conv",
            ["x", "w", "b"] if bias else ["x", "w"],
            [names[0]],
            pads=[1, 1, 1, 1],
            kernel_shape=[3, 3],
            group=groups,
        ),
        *(
            helper.make_node(operator, [names[index]], [names[index + 1]], **(windows if "Pool" in operator else {}))
            for index, operator in enumerate(between)
        ),
        helper.make_node("Flatten", ["t"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    size = 8 * (SIDE // 2 ** sum("Pool" in operator for operator in between)) ** 2
    stored = {"w": rng.normal(size=(8, 4 // groups, 3, 3)), "b": rng.normal(size=8), "v": rng.normal(size=(size, 3))}
    graph = helper.make_graph(
        nodes,
        "folded",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [
            numpy_helper.from_array(each.astype(np.float32), name)
            for name, each in stored.items()
            if bias or name != "b"
        ],
    )
    return load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def _cut(model: Model, tensor: str) -> Cut:
    return next(cut for cut in enumerate_cuts(model).cuts if cut.tensors == (tensor,))


def _masked(model: Model, name: str, share: float) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Return the model with a mask at t, as it is and folded."""
    sample = {"t": np.random.default_rng(1).normal(size=(64, *model.tensors["t"].shape[1:]))}
    plain = apply_mask(model, _cut(model, "t"), name, strength=share, seed=0, sample=sample)
    folded = onnx.ModelProto()
    folded.CopyFrom(plain)
    fold_linear_masks(folded)
    onnx.checker.check_model(folded)
    return plain, folded


def _values(proto: onnx.ModelProto) -> list[np.ndarray]:
    """Return what crosses and the answers, for random inputs."""
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    proto.graph.output.append(helper.make_tensor_value_info("t_masked", TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(
        ["t_masked", "y"], {"x": np.random.default_rng(2).normal(size=(5, 4, SIDE, SIDE)).astype(np.float32)}
    )
    return found


def _flops_before(proto: onnx.ModelProto) -> int:
    model = load_model(proto)
    return sum(model.nodes[index].flops for index in prefix_nodes(model, _cut(model, "t_masked")))


@given(
    some.sampled_from([(), ("Relu",), ("Relu", "MaxPool"), ("AveragePool", "Sigmoid"), ("LeakyRelu",)]),
    some.booleans(),
    some.sampled_from([0.2, 0.5, 0.9]),
    some.integers(0, 5),
)
@settings(max_examples=15, deadline=None)
def test_a_choice_of_channels_becomes_part_of_the_convolution(
    between: tuple[str, ...],
    bias: bool,  # noqa: FBT001 - hypothesis calls it by name
    share: float,
    seed: int,
) -> None:
    """Across activations and pooling, what crosses is the same up to rounding, and only kept channels are computed."""
    model = _model(*between, bias=bias, seed=seed)
    plain, folded = _masked(model, "channel_pruning", share)
    for expected, found in zip(_values(plain), _values(folded), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert _flops_before(folded) < _flops_before(plain)
    assert not [node for node in folded.graph.node if node.op_type == "Gather"]


@given(some.booleans(), some.sampled_from([0.2, 0.5, 0.9]), some.integers(0, 5))
@settings(max_examples=8, deadline=None)
def test_a_mixture_right_behind_a_convolution_is_multiplied_into_it(
    bias: bool,  # noqa: FBT001 - hypothesis calls it by name
    share: float,
    seed: int,
) -> None:
    """The bottleneck's first map costs nothing there, and what crosses is the same up to rounding."""
    plain, folded = _masked(_model(bias=bias, seed=seed), "bottleneck", share)
    for expected, found in zip(_values(plain), _values(folded), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert _flops_before(folded) < _flops_before(plain)
    assert [node.op_type for node in folded.graph.node].count("Conv") == 2


@given(
    some.sampled_from([(), ("Relu",)]),
    some.booleans(),
    some.sampled_from(["quantise", "randomised_response"]),
    some.sampled_from([0.25, 1.0, 2.5]),
    some.integers(0, 5),
)
@settings(max_examples=12, deadline=None)
def test_what_clips_takes_the_place_of_a_relu_and_its_offset_that_of_a_bias(
    between: tuple[str, ...],
    bias: bool,  # noqa: FBT001 - hypothesis calls it by name
    name: str,
    spread: float,
    seed: int,
) -> None:
    """The same level crosses, but where rounding decides between two; before the cut stand Conv, Mul, Clip, Floor."""
    model = _model(*between, bias=bias, seed=seed)
    sample = {"t": spread * np.random.default_rng(1).normal(size=(64, *model.tensors["t"].shape[1:]))}
    strength = 0.5 if name == "quantise" else 0.0
    plain = apply_mask(model, _cut(model, "t"), name, strength=strength, seed=0, sample=sample)
    folded = onnx.ModelProto()
    folded.CopyFrom(plain)
    fold_linear_masks(folded)
    onnx.checker.check_model(folded)
    first, second = _values(plain)[0], _values(folded)[0]
    assert np.abs(first - second).max() <= 1
    assert (first != second).mean() < 1e-3
    assert len(np.unique(first)) > 2
    before = load_model(folded)
    kinds = [before.nodes[index].op_type for index in prefix_nodes(before, _cut(before, "t_masked"))]
    assert kinds == ["Conv", "Mul", "Clip", "Floor"]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (_model("Relu"), "bottleneck"),
        (_model("Softmax"), "channel_pruning"),
        (_model("Relu", groups=2), "channel_pruning"),
        (_model("Relu"), "gaussian"),
        (_model("Sigmoid"), "quantise"),
    ],
    ids=["behind an activation", "across channels", "in groups", "noise", "clipped behind an activation"],
)
def test_what_does_not_commute_stays(model: Model, name: str) -> None:
    """A mixture behind an activation, channels that depend on each other, groups and noise are left as they are."""
    plain, folded = _masked(model, name, 0.5)
    assert plain == folded


def test_a_value_that_others_read_stays() -> None:
    """Where the unmasked value has another reader, before the cut too, it is still computed."""
    model = _model("Relu")
    proto = apply_mask(
        model, _cut(model, "t"), "channel_pruning", strength=0.5, seed=0, sample={"t": np.ones((4, 8, SIDE, SIDE))}
    )
    proto.graph.output.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, ["n", 8, SIDE, SIDE]))
    before = proto.SerializeToString(deterministic=True)
    fold_linear_masks(proto)
    assert proto.SerializeToString(deterministic=True) == before


def test_a_clip_that_a_relu_would_change_stays() -> None:
    """Where all that a clip lets through is below zero, the ReLU before it stays, and the same level crosses."""
    model = _model("Relu")
    sample = {"t": np.linspace(-9, -1, 64 * 8 * SIDE * SIDE).reshape(64, 8, SIDE, SIDE)}
    plain = apply_mask(model, _cut(model, "t"), "quantise", strength=0.5, seed=0, sample=sample)
    folded = onnx.ModelProto()
    folded.CopyFrom(plain)
    fold_linear_masks(folded)
    assert plain == folded


def test_a_clip_behind_a_product_that_turns_around_stays() -> None:
    """A number below zero makes the least of a ReLU's values the most: the ReLU stays."""
    plain, _ = _masked(_model("Relu"), "quantise", 0.5)
    scale = next(node.input[1] for node in plain.graph.node if node.op_type == "Mul" and "t_mask" in node.name)
    (tensor,) = (tensor for tensor in plain.graph.initializer if tensor.name == scale)
    tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), scale))
    folded = onnx.ModelProto.FromString(plain.SerializeToString())
    fold_linear_masks(folded)
    assert plain == folded
