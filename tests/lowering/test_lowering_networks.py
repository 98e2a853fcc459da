"""Random small networks, lowered, compiled and held against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lowering_host import build_model, run_lowered, run_reference
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from siniantrust.graph import enumerate_cuts, load_model, split
from siniantrust.lowering import lower

_FLOAT = TensorProto.FLOAT
_DEMO = Path(__file__).resolve().parents[2] / "src/siniantrust/demo/scenes.onnx"
_QUIET = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class _Net:
    """A network that grows node by node, with its shape known."""

    def __init__(self, seed: int, shape: tuple[int, ...]) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.input_shape = self.shape = shape
        self.last = "x"
        self.earlier: dict[tuple[int, ...], list[str]] = {shape: ["x"]}

    def weight(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = array
        return name

    def normal(self, *shape: int) -> str:
        return self.weight(self.random.normal(scale=0.5, size=shape).astype(np.float32))

    def add(self, op_type: str, *operands: str, **attributes: Any) -> None:
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, [self.last, *operands], [output], **attributes))
        self.last = output

    def conv(self, draw: st.DrawFn) -> None:
        _, channels, height, width = self.shape
        filters, stride, pad = draw(st.integers(1, 6)), draw(st.integers(1, 2)), draw(st.integers(0, 1))
        kernel = draw(st.sampled_from([1, 3])) if min(height, width) + 2 * pad >= 3 else 1
        bias = [self.normal(filters)] if draw(st.booleans()) else []
        taps = self.normal(filters, channels, kernel, kernel)
        self.add("Conv", taps, *bias, strides=[stride] * 2, pads=[pad] * 4)
        self.shape = (1, filters, *((size + 2 * pad - kernel) // stride + 1 for size in (height, width)))

    def depthwise(self, _draw: st.DrawFn) -> None:
        channels = self.shape[1]
        self.add("Conv", self.normal(channels, 1, 3, 3), group=channels, auto_pad="SAME_UPPER")

    def activation(self, draw: st.DrawFn) -> None:
        operator = draw(st.sampled_from(["Relu", "LeakyRelu", "HardSwish", "Clip"]))
        bounds = [self.weight(np.array(value, np.float32)) for value in (0, 0.75)] if operator == "Clip" else []
        self.add(operator, *bounds)

    def pool(self, draw: st.DrawFn) -> None:
        _, channels, height, width = self.shape
        if min(height, width) > 1:
            self.add(draw(st.sampled_from(["MaxPool", "AveragePool"])), kernel_shape=[2, 2], strides=[2, 2])
            self.shape = (1, channels, height // 2, width // 2)

    def sum(self, draw: st.DrawFn) -> None:
        self.add("Add", draw(st.sampled_from(self.earlier.get(self.shape, [self.last]))))

    def norm(self, _draw: st.DrawFn) -> None:
        channels = self.shape[1]
        variance = self.weight(self.random.uniform(0.5, 2, channels).astype(np.float32))
        self.add("BatchNormalization", *(self.normal(channels) for _ in range(3)), variance)

    def classifier(self) -> None:
        self.add("GlobalAveragePool")
        self.add("Flatten")
        self.add("Gemm", self.normal(5, self.shape[1]), self.normal(5), transB=1)
        self.shape = (1, 5)

    def model(self) -> onnx.ModelProto:
        return build_model(
            self.nodes,
            {"x": (_FLOAT, list(self.input_shape))},
            {self.last: (_FLOAT, list(self.shape))},
            self.weights,
        )


@st.composite
def _networks(draw: st.DrawFn) -> onnx.ModelProto:
    """Draw a network of convolutions, activations, poolings and sums, and perhaps a classifier behind it."""
    net = _Net(draw(st.integers(0, 2**32)), (1, *(draw(st.integers(*most)) for most in ((1, 4), (5, 9), (5, 9)))))
    net.conv(draw)
    for _ in range(draw(st.integers(0, 5))):
        draw(st.sampled_from([net.conv, net.depthwise, net.activation, net.pool, net.sum, net.norm]))(draw)
        net.earlier.setdefault(net.shape, []).append(net.last)
    if draw(st.booleans()):
        net.classifier()
    return net.model()


@_QUIET
@given(model=_networks(), seed=st.integers(0, 2**32))
def test_float_networks_equal_onnx_runtime(tmp_path: Path, model: onnx.ModelProto, seed: int) -> None:
    """A random network computes what ONNX Runtime computes within 1e-4, whatever the arena held before."""
    (entry,) = model.graph.input
    shape = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
    x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    found, expected = run_lowered(model, {"x": x}, tmp_path), run_reference(model, {"x": x})
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4)


@st.composite
def _quantised_networks(draw: st.DrawFn) -> onnx.ModelProto:
    """Draw QuantizeLinear, integer convolutions and a pooling, and DequantizeLinear, for every pair of signs.

    ONNX Runtime has no kernel for signed activations and unsigned weights.

    Weights have 7 bits where activations are unsigned and weights signed: ONNX Runtime's kernel for AVX2 adds two such
    products in 16 bits, and saturates; ONNX itself does not.
    """
    net = _Net(draw(st.integers(0, 2**32)), (1, draw(st.integers(1, 4)), 7, 6))
    kind, weight_kind = draw(st.sampled_from([(np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)]))
    narrow = kind is np.uint8 and weight_kind is np.int8

    def measure() -> tuple[str, str]:
        """Draw scale and zero point of an activation."""
        scale, zero = draw(st.sampled_from([0.5, 0.03125, 0.017, 0.0731])), draw(st.integers(0, 127))
        return net.weight(np.array(scale, np.float32)), net.weight(np.array(zero, kind))

    held = measure()
    net.add("QuantizeLinear", *held)
    for _ in range(draw(st.integers(1, 3))):
        channels, filters = net.shape[1], draw(st.integers(1, 5))
        by_channel = weight_kind is np.int8 and draw(st.booleans())
        low, high = (-64, 64) if narrow else (np.iinfo(weight_kind).min, np.iinfo(weight_kind).max + 1)
        taps = net.weight(net.random.integers(low, high, size=(filters, channels, 3, 3)).astype(weight_kind))
        scales = net.random.uniform(0.001, 0.02, filters if by_channel else ()).astype(np.float32)
        zero = 0 if by_channel or narrow else draw(st.integers(0, 9))
        zeros = np.full(filters if by_channel else (), zero, weight_kind)
        bias = net.weight(net.random.integers(-4000, 4000, filters).astype(np.int32))
        made = measure()
        net.add("QLinearConv", *held, taps, net.weight(scales), net.weight(zeros), *made, bias, pads=[1] * 4)
        held, net.shape = made, (1, filters, *net.shape[2:])
    if draw(st.booleans()):
        net.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
        net.shape = (1, net.shape[1], 3, 3)
    net.add("DequantizeLinear", *held)
    return net.model()


@_QUIET
@given(model=_quantised_networks(), seed=st.integers(0, 2**32))
def test_integer_networks_equal_onnx_runtime_exactly(tmp_path: Path, model: onnx.ModelProto, seed: int) -> None:
    """A random network on QLinearConv gives the very numbers that ONNX Runtime gives."""
    (entry,) = model.graph.input
    shape = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
    x = np.random.default_rng(seed).normal(size=shape, scale=3).astype(np.float32)
    found, expected = run_lowered(model, {"x": x}, tmp_path), run_reference(model, {"x": x})
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_integers_of_full_range_equal_onnx(tmp_path: Path) -> None:
    """Unsigned activations and signed weights of 8 bits give what ONNX's reference evaluator gives, no less."""
    random = np.random.default_rng(0)
    numbers = {"xs": np.float32(0.02), "xz": np.uint8(3), "ws": np.float32(0.001), "wz": np.int8(0)}
    numbers |= {"ys": np.float32(0.03), "yz": np.uint8(100)}
    weights = {name: np.array(number) for name, number in numbers.items()}
    weights["w"] = random.integers(-128, 128, size=(8, 16, 3, 3)).astype(np.int8)
    node = helper.make_node("QLinearConv", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"])
    kind = TensorProto.UINT8
    model = build_model([node], {"x": (kind, [1, 16, 8, 8])}, {"y": (kind, [1, 8, 6, 6])}, weights)
    x = random.integers(0, 256, size=(1, 16, 8, 8)).astype(np.uint8)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert len(np.unique(expected)) > 50
    np.testing.assert_array_equal(run_lowered(model, {"x": x}, tmp_path)["y"], expected)


def test_every_part_1_of_the_demo_equals_onnx_runtime(tmp_path: Path) -> None:
    """Every prefix of the demo's network, and the rest behind it, computes what ONNX Runtime computes within 1e-4."""
    model = load_model(_DEMO)
    x = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
    for cut in enumerate_cuts(model).cuts[1::4]:
        pool = {"tile": x}
        for part in split(model, [cut]):
            inputs = {tensor.name: pool[tensor.name] for tensor in part.inputs}
            found, expected = run_lowered(part.proto, inputs, tmp_path), run_reference(part.proto, inputs)
            for name, array in expected.items():
                np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4)
            pool |= expected


def test_weights_are_not_in_the_source() -> None:
    """Two parts that differ in their weights only are the same C file."""
    model = load_model(_DEMO)
    other = onnx.ModelProto()
    other.CopyFrom(model.proto)
    for tensor in other.graph.initializer:
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(array + np.ones_like(array), tensor.name))
    assert lower(model.proto).source == lower(other).source
