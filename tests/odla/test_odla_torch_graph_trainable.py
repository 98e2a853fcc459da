"""Training an ONNX graph in torch: the same graph before and after, read by ONNX Runtime both times."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

from siniantrust.errors import DataError, DeviceError
from siniantrust.odla.torch_graph import TrainableGraph

make = helper.make_node


def _model(
    nodes: Sequence[onnx.NodeProto], stored: Mapping[str, np.ndarray] | None = None, *, opset: int = 17
) -> onnx.ModelProto:
    """Return a model from ``x`` (n, 3, 8, 8) to ``y``."""
    graph = helper.make_graph(
        list(nodes),
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, name) for name, values in (stored or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _network() -> onnx.ModelProto:
    """Return a small residual network with batch normalisation, dropout, a square and a clip."""
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) / np.prod(shape[1:]) ** 0.5).astype(np.float32)

    return _model(
        [
            make("Conv", ["x", "body.0/w", "b0"], ["c0"], "conv0", pads=[1, 1, 1, 1]),
            make("BatchNormalization", ["c0", "gain", "shift", "mean", "var"], ["n0"], "norm0", momentum=0.8),
            make("Clip", ["n0", "low", "high"], ["r0"], "relu6"),
            make("Conv", ["r0", "training"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
            make("Add", ["c1", "r0"], ["s1"], "join"),
            make("Pow", ["s1", "two"], ["q1"], "square"),
            make("Dropout", ["q1", "ratio"], ["d1"], "drop"),
            make("GlobalAveragePool", ["d1"], ["g1"], "pool"),
            make("Reshape", ["g1", "by"], ["f1"], "flat"),
            make("Gemm", ["f1", "w2", "b2"], ["y"], "dense", transB=1),
        ],
        {
            "body.0/w": weights(8, 3, 3, 3),
            "training": weights(8, 8, 3, 3),
            "b0": np.zeros(8, np.float32),
            "gain": np.ones(8, np.float32),
            "shift": np.zeros(8, np.float32),
            "mean": np.zeros(8, np.float32),
            "var": np.ones(8, np.float32),
            "low": np.zeros((), np.float32),
            "high": np.full((), 6, np.float32),
            "two": np.full((), 2, np.float32),
            "ratio": np.full((), 0.5, np.float32),
            "by": np.array([0, -1], np.int64),
            "w2": weights(4, 8),
            "b2": np.zeros(4, np.float32),
        },
    )


def _images(count: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 3, 8, 8)).astype(np.float32)


def _answer(proto: onnx.ModelProto, values: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": values})[0]
    return found


def _train(network: TrainableGraph, steps: int = 1) -> list[float]:
    torch.manual_seed(0)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05)
    labels = torch.arange(16) % 4
    losses = []
    network.train()
    for _ in range(steps):
        optimiser.zero_grad()
        loss = functional.cross_entropy(network(torch.tensor(_images(16)))[0], labels)
        loss.backward()  # type: ignore[no-untyped-call] # torch's
        optimiser.step()
        losses.append(loss.item())
    return losses


def _stored(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def test_answers_equal_onnx_runtimes_before_and_after_training() -> None:
    """Before training and after it, the module and the model that it writes answer alike, for any batch."""
    proto = _network()
    network = TrainableGraph(proto)
    np.testing.assert_array_equal(_answer(network.to_proto(), _images(3)), _answer(proto, _images(3)))
    losses = _train(network, 10)
    assert losses[-1] < losses[0]
    network.eval()
    trained = network.to_proto()
    for count in (1, 5):
        found = network(torch.tensor(_images(count)))[0].detach().numpy()
        np.testing.assert_allclose(found, _answer(trained, _images(count)), rtol=1e-4, atol=1e-5)
    assert np.abs(_answer(trained, _images(3)) - _answer(proto, _images(3))).max() > 1e-2


def test_only_numbers_change() -> None:
    """The trained model is the given one, node by node and name by name, but for weights and running statistics."""
    proto = _network()
    network = TrainableGraph(proto)
    _train(network)
    trained = network.to_proto()
    before, after = _stored(proto), _stored(trained)
    changed = {name for name, values in after.items() if not np.array_equal(values, before[name])}
    weights = {name for name, _ in network.named_weights()}
    assert weights == {"body.0/w", "training", "b0", "gain", "shift", "w2", "b2"}
    # A bias before a batch normalisation has no gradient but rounding's.
    assert changed | {"b0"} == weights | {"mean", "var"}
    for model in (proto, trained):
        del model.graph.initializer[:]
    assert trained == proto


def test_running_statistics_move_as_torch_moves_them() -> None:
    """One step in training mode moves mean and variance to where torch's own layer moves them."""
    proto = _network()
    network = TrainableGraph(proto)
    layer = torch.nn.BatchNorm2d(8, momentum=0.2)
    weight = torch.tensor(_stored(proto)["body.0/w"])
    layer(functional.conv2d(torch.tensor(_images(16)), weight, padding=1))
    network.train()(torch.tensor(_images(16)))
    assert layer.running_mean is not None
    assert layer.running_var is not None
    found = _stored(network.to_proto())
    np.testing.assert_allclose(found["mean"], layer.running_mean.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["var"], layer.running_var.numpy(), rtol=1e-5, atol=1e-6)


def test_what_is_frozen_stays() -> None:
    """Frozen weights keep their bits, and a normalisation with frozen statistics acts as in inference."""
    proto = _network()
    frozen = ["body.0/w", "b0", "gain", "shift", "mean", "var"]
    network = TrainableGraph(proto, frozen=frozen)
    _train(network, 3)
    before, after = _stored(proto), _stored(network.to_proto())
    for name in frozen:
        np.testing.assert_array_equal(after[name], before[name])
    assert not np.array_equal(after["w2"], before["w2"])


@pytest.mark.parametrize("opset", [10, 13])
def test_dropout_drops_in_training_mode_only(opset: int) -> None:
    """In training mode the node's share is zero and the rest is scaled; else nothing is dropped."""
    stored = {"w": np.ones(1, np.float32)}
    if opset < 12:
        node = make("Dropout", ["s"], ["y"], "drop", ratio=0.25)
    else:
        node = make("Dropout", ["s", "ratio"], ["y"], "drop")
        stored["ratio"] = np.full((), 0.25, np.float32)
    network = TrainableGraph(_model([make("Mul", ["x", "w"], ["s"], "scale"), node], stored, opset=opset))
    torch.manual_seed(0)
    ones = torch.ones(64, 3, 8, 8)
    dropped = network.train()(ones)[0]
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert dropped[dropped != 0].unique().tolist() == pytest.approx([4 / 3])
    assert network.eval()(ones)[0].equal(ones)


def test_a_copy_trains_apart_from_the_original() -> None:
    """A deep copy and a module that takes over the state answer alike and share no numbers."""
    network = TrainableGraph(_network())
    before = _stored(network.to_proto())
    twin = copy.deepcopy(network)
    _train(twin)
    other = TrainableGraph(_network())
    other.load_state_dict(twin.state_dict())
    for name, values in _stored(network.to_proto()).items():
        np.testing.assert_array_equal(values, before[name])
    for name, values in _stored(twin.to_proto()).items():
        np.testing.assert_array_equal(values, _stored(other.to_proto())[name])


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_element_types_are_kept(dtype: type[np.floating]) -> None:
    """A weight that is stored in another floating type is written back in it."""
    cast = make("Cast", ["x"], ["h"], "cast", to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    network = TrainableGraph(_model([cast, make("Mul", ["h", "w"], ["y"], "scale")], {"w": np.ones((3, 1, 1), dtype)}))
    with torch.no_grad():
        for _, weight in network.named_weights():
            weight.add_(0.5)
    np.testing.assert_array_equal(_stored(network.to_proto())["w"], np.full((3, 1, 1), 1.5, dtype))


def test_operators_that_cannot_be_run_are_all_named() -> None:
    """The error names every node that torch cannot run, not only the first."""
    nodes = [make("Nonsense", ["x"], ["a"], "one"), make("MoreNonsense", ["a"], ["y"], "two")]
    with pytest.raises(DeviceError, match=r"'one' \(Nonsense\).*'two' \(MoreNonsense\)"):
        TrainableGraph(_model(nodes))


def test_an_operator_that_no_gradient_passes_is_named() -> None:
    """A model that ends in the place of the maximum cannot be trained, and says at which node."""
    nodes = [make("Mul", ["x", "w"], ["s"], "scale"), make("ArgMax", ["s"], ["y"], "decide", axis=1)]
    with pytest.raises(DeviceError, match=r"no gradient passes node 'decide' \(ArgMax\)"):
        TrainableGraph(_model(nodes, {"w": np.ones(1, np.float32)}))


def test_a_model_without_numbers_is_refused() -> None:
    """There is nothing to train in a model that stores nothing."""
    with pytest.raises(DeviceError, match="stores no floating numbers"):
        TrainableGraph(_model([make("Relu", ["x"], ["y"], "relu")]))


def test_wrong_names_and_counts_are_named() -> None:
    """A frozen name that is not there, and a missing input, are errors that say so."""
    with pytest.raises(DataError, match="called 'nothing'"):
        TrainableGraph(_network(), frozen=["nothing"])
    with pytest.raises(DataError, match=r"1 inputs \(x\), not 0"):
        TrainableGraph(_network())()
