"""The torch graph as a whole: from any tensors to any others, gradients, older operator forms, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from siniantrust.errors import DataError, DeviceError
from siniantrust.graph import load_model
from siniantrust.odla.torch_graph import TorchGraph


def _weights(**shapes: Sequence[int]) -> list[onnx.TensorProto]:
    rng = np.random.default_rng(0)
    return [
        numpy_helper.from_array((rng.normal(size=shape) / np.prod(shape[1:]) ** 0.5).astype(np.float32), name)
        for name, shape in shapes.items()
    ]


def _model(
    nodes: Sequence[onnx.NodeProto],
    stored: Sequence[onnx.TensorProto] = (),
    *,
    shape: Sequence[int | str] = ("n", 3, 12, 12),
    answer: Sequence[int | str] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """Return a model from ``x`` to ``y``; the opset decides which form of the operators is meant."""
    graph = helper.make_graph(
        list(nodes),
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, answer)],
        list(stored),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _network() -> onnx.ModelProto:
    """Return a residual convolutional network with attention over its positions."""
    make = helper.make_node
    ints = {"by": [0, 8, 36], "back": [0, 36, 8], "axis": [1]}
    stored = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in ints.items()]
    moments = {"mean": np.zeros(8), "var": np.full(8, 2.0), "gain": np.ones(8), "shift": np.full(8, 0.1)}
    stored += [numpy_helper.from_array(value.astype(np.float32), name) for name, value in moments.items()]
    stored += _weights(w1=(8, 3, 3, 3), w2=(8, 1, 3, 3), q=(8, 8), k=(8, 8), g=(8,), h=(8,), w3=(5, 8))
    nodes = [
        make("Conv", ["x", "w1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        make("BatchNormalization", ["c1", "gain", "shift", "mean", "var"], ["b1"], "norm1"),
        make("Relu", ["b1"], ["r1"], "relu1"),
        make("Conv", ["r1", "w2"], ["c2"], "conv2", group=8, auto_pad="SAME_UPPER"),
        make("Add", ["r1", "c2"], ["join"], "join"),
        make("MaxPool", ["join"], ["p1"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        make("Reshape", ["p1", "by"], ["flat"], "flat"),
        make("Transpose", ["flat"], ["t1"], "turn", perm=[0, 2, 1]),
        make("LayerNormalization", ["t1", "g", "h"], ["l1"], "norm2"),
        make("MatMul", ["l1", "q"], ["q1"], "query"),
        make("MatMul", ["l1", "k"], ["k1"], "key"),
        make("Transpose", ["k1"], ["k2"], "turn2", perm=[0, 2, 1]),
        make("MatMul", ["q1", "k2"], ["score"], "score"),
        make("Softmax", ["score"], ["soft"], "soft", axis=-1),
        make("MatMul", ["soft", "l1"], ["mixed"], "mix"),
        make("Gelu", ["mixed"], ["bent"], "gelu"),
        make("ReduceMean", ["bent", "axis"], ["mean1"], "mean", keepdims=0),
        make("Gemm", ["mean1", "w3"], ["y"], "dense", transB=1),
    ]
    return _model(nodes, stored, answer=("n", 5), opset=20)


def _expected(proto: onnx.ModelProto, values: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    answer: np.ndarray = session.run(None, {"x": values})[0]
    return answer


def _images(count: int = 2) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 3, 12, 12)).astype(np.float32)


def test_a_whole_network_computes_what_onnx_runtime_computes() -> None:
    """A network of convolutions, normalisation and attention gives ONNX Runtime's answer."""
    model = load_model(_network())
    found = TorchGraph(model.proto).run({"x": torch.tensor(_images(3))}, ["y"])["y"]
    np.testing.assert_allclose(found.numpy(), _expected(_network(), _images(3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inner", ["c1", "join", "flat", "l1", "mean1"])
def test_going_on_from_an_inner_tensor_gives_the_same_answer(inner: str) -> None:
    """Stopping at any tensor and going on from it gives exactly the answer of the whole."""
    graph = TorchGraph(_network())
    images = torch.tensor(_images())
    whole = graph.run({"x": images}, ["y"])["y"]
    halfway = graph.run({"x": images}, [inner])
    assert torch.equal(graph.run(halfway, ["y"])["y"], whole)


def test_several_tensors_can_be_given_and_wanted() -> None:
    """Given tensors come back if wanted, and several outputs of one run are those of runs of their own."""
    graph = TorchGraph(_network())
    images = torch.tensor(_images())
    found = graph.run({"x": images}, ["x", "r1", "y", "w3"])
    assert found["x"] is images
    assert torch.equal(found["r1"], graph.run({"x": images}, ["r1"])["r1"])
    assert torch.equal(graph.run({"r1": found["r1"]}, ["y"])["y"], found["y"])
    assert found["w3"].shape == (5, 8)


def test_the_gradient_is_the_slope() -> None:
    """The gradient for the input agrees with finite differences in double precision."""
    graph = TorchGraph(_network())
    doubles = {name: value.double() for name, value in graph.weights().items() if value.is_floating_point()}
    image = torch.tensor(_images(1)).double().requires_grad_()
    weights = torch.randn(5, generator=torch.Generator().manual_seed(0)).double()

    def value(pixels: torch.Tensor) -> torch.Tensor:
        return (graph.run({"x": pixels, **doubles}, ["y"])["y"] * weights).sum()

    (gradient,) = torch.autograd.grad(value(image), image)
    for place in [(0, 0, 3, 4), (0, 2, 11, 0)]:
        step = torch.zeros_like(image)
        step[place] = 1e-6
        slope = (value(image + step) - value(image - step)) / 2e-6
        assert gradient[place].item() == pytest.approx(slope.item(), rel=1e-4)


def test_weights_can_be_trained() -> None:
    """Weights that the caller gives take the place of the stored ones and get gradients."""
    graph = TorchGraph(_network())
    trained = graph.weights()["w3"].clone().requires_grad_()
    images = torch.tensor(_images())
    answer = graph.run({"x": images, "w3": trained}, ["y"])["y"]
    assert torch.equal(answer, graph.run({"x": images}, ["y"])["y"])
    (gradient,) = torch.autograd.grad(answer.sum(), trained)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", ["Round", "Floor", "Ceil", "Sign"])
def test_rounding_lets_the_gradient_pass(name: str) -> None:
    """A rounding operator has the identity's gradient."""
    graph = TorchGraph(_model([helper.make_node(name, ["x"], ["y"], "r")]))
    values = torch.tensor(_images()).requires_grad_()
    answer = graph.run({"x": values}, ["y"])["y"]
    assert torch.equal(answer, answer.round())
    (gradient,) = torch.autograd.grad(answer.sum(), values)
    assert torch.equal(gradient, torch.ones_like(values))


def test_quantising_lets_the_gradient_pass_where_nothing_saturates() -> None:
    """Quantising and back gives the rounded values, and a gradient of one within the range, of zero beyond."""
    stored = [
        numpy_helper.from_array(np.array(0.1, np.float32), "scale"),
        numpy_helper.from_array(np.array(3, np.int8), "zero"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], "d"),
    ]
    proto = _model(nodes, stored, shape=(3,))
    values = torch.tensor([0.52, -0.2, 99.0], requires_grad=True)
    answer = TorchGraph(proto).run({"x": values}, ["y"])["y"]
    np.testing.assert_allclose(answer.detach().numpy(), _expected(proto, values.detach().numpy()), rtol=1e-6)
    (gradient,) = torch.autograd.grad(answer.sum(), values)
    np.testing.assert_allclose(gradient.numpy(), [1, 1, 0], rtol=1e-6)


_OLD: dict[str, tuple[int, list[onnx.NodeProto]]] = {
    "softmax over the rest": (11, [helper.make_node("Softmax", ["x"], ["y"], axis=2)]),
    "log-softmax over the rest": (11, [helper.make_node("LogSoftmax", ["x"], ["y"])]),
    "clip by attributes": (10, [helper.make_node("Clip", ["x"], ["y"], min=-0.5, max=0.7)]),
    "slice by attributes": (9, [helper.make_node("Slice", ["x"], ["y"], axes=[2, 3], starts=[1, -5], ends=[9, 99])]),
    "unsqueeze and squeeze by attributes": (
        11,
        [
            helper.make_node("Unsqueeze", ["x"], ["u"], axes=[0, 3]),
            helper.make_node("Squeeze", ["u"], ["y"], axes=[0, 3]),
        ],
    ),
    "pad by attributes": (
        10,
        [helper.make_node("Pad", ["x"], ["y"], mode="reflect", pads=[0, 0, 2, 1, 0, 0, 0, 3])],
    ),
    "pad by a constant": (10, [helper.make_node("Pad", ["x"], ["y"], pads=[0, 1, -2, 1, 0, 0, 0, 3], value=0.5)]),
    "reduce by attributes": (13, [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)]),
    "reduce everything": (13, [helper.make_node("ReduceMax", ["x"], ["y"])]),
    "sum by attributes": (11, [helper.make_node("ReduceSum", ["x"], ["y"], axes=[-1])]),
    "split by attributes": (
        11,
        [
            helper.make_node("Split", ["x"], ["a", "b"], axis=1, split=[1, 2]),
            helper.make_node("Mul", ["a", "b"], ["y"]),
        ],
    ),
    "dropout by attribute": (11, [helper.make_node("Dropout", ["x"], ["y"], ratio=0.4)]),
    "nearest upsample": (8, [helper.make_node("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 1.5])]),
    "linear upsample": (8, [helper.make_node("Upsample", ["x"], ["y"], mode="linear", scales=[1.0, 1.0, 2.0, 2.0])]),
    "top two by attribute": (9, [helper.make_node("TopK", ["x"], ["y", "places"], k=2, axis=1)]),
    "average pool, rounding up": (
        11,
        [
            helper.make_node(
                "AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, pads=[0, 1, 0, 0]
            )
        ],
    ),
}


@pytest.mark.parametrize("case", _OLD)
def test_an_older_form_computes_what_onnx_runtime_computes(case: str) -> None:
    """Forms of operators that later opsets changed still mean what they meant."""
    opset, nodes = _OLD[case]
    proto = _model(nodes, opset=opset, shape=(2, 3, 12, 12))
    found = TorchGraph(proto).run({"x": torch.tensor(_images())}, ["y"])["y"]
    np.testing.assert_allclose(found.numpy(), _expected(proto, _images()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("node", "low", "high"),
    [
        (helper.make_node("RandomNormalLike", ["x"], ["y"], "noise", mean=3.0, scale=0.1), 2, 4),
        (helper.make_node("RandomUniformLike", ["x"], ["y"], "noise", low=2.0, high=4.0), 2, 4),
        (helper.make_node("RandomNormal", [], ["y"], "noise", mean=3.0, scale=0.1, shape=[2, 3, 12, 12]), 2, 4),
        (helper.make_node("RandomUniform", [], ["y"], "noise", low=2.0, high=4.0, shape=[2, 3, 12, 12]), 2, 4),
    ],
)
def test_noise_is_fresh_and_follows_torchs_seed(node: onnx.NodeProto, low: float, high: float) -> None:
    """Noise has the node's mean, differs from run to run, and repeats with torch's seed."""
    graph = TorchGraph(_model([node]))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        first, second = (graph.run({"x": torch.tensor(_images())}, ["y"])["y"] for _ in range(2))
        torch.manual_seed(5)
        again = graph.run({"x": torch.tensor(_images())}, ["y"])["y"]
    assert first.shape == (2, 3, 12, 12)
    assert first.mean().item() == pytest.approx(3, abs=0.1)
    assert low <= first.min() < first.max() <= high
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_an_unknown_operator_is_named_before_anything_runs() -> None:
    """An operator outside the table stops the run before its first node, with node, operator and reason."""
    nodes = [
        helper.make_node("Reshape", ["x", "x"], ["bad"], "would fail"),
        helper.make_node("Det", ["bad"], ["y"], "determinant"),
    ]
    graph = TorchGraph(_model(nodes))
    with pytest.raises(DeviceError, match=r"node 'determinant': PyTorch cannot run Det here: .*not in the table"):
        graph.run({"x": torch.tensor(_images())}, ["y"])


def test_an_unsupported_attribute_is_named() -> None:
    """A form of a known operator that cannot be served is refused by attribute and value."""
    node = helper.make_node("ArgMax", ["x"], ["y"], "far", select_last_index=1)
    (refused,) = TorchGraph(_model([node])).supports(["x"], ["y"])
    assert (refused.node, refused.op_type) == ("far", "ArgMax")
    assert refused.reason == "attribute 'select_last_index' = 1 is not supported"


def test_what_is_not_needed_may_be_unsupported() -> None:
    """Only the nodes between the given and the wanted tensors count."""
    nodes = [helper.make_node("Det", ["x"], ["d"], "det"), helper.make_node("Relu", ["d"], ["y"], "relu")]
    graph = TorchGraph(_model(nodes))
    assert graph.supports(["d"], ["y"]) == []
    assert graph.run({"d": torch.tensor([-1.0, 2.0])}, ["y"])["y"].tolist() == [0.0, 2.0]


def test_a_missing_value_is_named() -> None:
    """A tensor that cannot be had is named with the node that needs it."""
    with pytest.raises(DataError, match="tensor 'x', which node 'conv1' needs, is neither given nor stored"):
        TorchGraph(_network()).run({"t1": torch.zeros(1)}, ["r1"])


def test_what_torch_refuses_is_named() -> None:
    """Inputs of a wrong shape are refused with the node's name."""
    with pytest.raises(DeviceError, match="node 'conv1': Conv: "):
        TorchGraph(_network()).run({"x": torch.zeros(1, 2, 12, 12)}, ["y"])
