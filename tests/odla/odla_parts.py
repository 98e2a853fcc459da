"""Small parts, each of which exercises one thing that a device may get wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from siniantrust.graph import Part, Tensor

_TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}
Port = tuple[str, str, Sequence[int | str]]


def make_part(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    weights: Sequence[onnx.TensorProto] = (),
    *,
    name: str = "part",
    opset: int = 21,
) -> Part:
    """Build a part; a port is its name, dtype and shape, in which strings are free dimensions."""
    for index, node in enumerate(nodes):
        node.name = node.name or f"{node.op_type.lower()}{index}"
    graph = helper.make_graph(
        list(nodes),
        name,
        [helper.make_tensor_value_info(n, _TYPES[t], list(s)) for n, t, s in inputs],
        [helper.make_tensor_value_info(n, _TYPES[t], list(s)) for n, t, s in outputs],
        list(weights),
    )
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("example.unknown", 1)]
    proto = helper.make_model(graph, ir_version=10, opset_imports=domains[: 1 + any(n.domain for n in nodes)])

    def tensors(ports: Sequence[Port]) -> tuple[Tensor, ...]:
        return tuple(Tensor(n, t, tuple(1 if isinstance(d, str) else d for d in s)) for n, t, s in ports)

    names = tuple(node.name for node in nodes)
    symbol = next((d for _, _, s in inputs for d in s if isinstance(d, str)), None)
    return Part(name, proto, tensors(inputs), tensors(outputs), names, symbol)


def _weights(seed: int, **shapes: Sequence[int]) -> list[onnx.TensorProto]:
    generator = np.random.default_rng(seed)
    return [
        numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]


def conv_part(*, name: str = "conv") -> Part:
    """Two convolutions with a skip connection and activations, which a runtime fuses."""
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], name="conv0", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"], name="relu0"),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c1", "r0"], ["a1"], name="add1"),
        helper.make_node("Relu", ["a1"], ["y"], name="relu1"),
    ]
    weights = _weights(1, w0=(8, 3, 3, 3), b0=(8,), w1=(8, 8, 3, 3))
    return make_part(nodes, [("x", "float32", ["N", 3, 8, 8])], [("y", "float32", ["N", 8, 8, 8])], weights, name=name)


def gemm_part(*, name: str = "gemm", seed: int = 2) -> Part:
    """A dense layer with an activation."""
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["g"], name="gemm"),
        helper.make_node("Relu", ["g"], ["y"], name="relu"),
    ]
    weights = _weights(seed, w=(6, 4), b=(4,))
    return make_part(nodes, [("x", "float32", ["N", 6])], [("y", "float32", ["N", 4])], weights, name=name)


def several_inputs_part() -> Part:
    """Three inputs of three dtypes."""
    nodes = [
        helper.make_node("Where", ["mask", "a", "b"], ["picked"]),
        helper.make_node("Gather", ["picked", "index"], ["y"], axis=1),
    ]
    inputs: list[Port] = [
        ("a", "float32", ["N", 5]),
        ("b", "float32", ["N", 5]),
        ("mask", "bool", ["N", 5]),
        ("index", "int64", [3]),
    ]
    return make_part(nodes, inputs, [("y", "float32", ["N", 3])])


def several_outputs_part() -> Part:
    """Outputs of three dtypes, one of them a value that another one is computed from."""
    nodes = [
        helper.make_node("Relu", ["x"], ["positive"]),
        helper.make_node("ArgMax", ["positive"], ["winner"], axis=1, keepdims=0),
        helper.make_node("Greater", ["positive", "x"], ["changed"]),
    ]
    outputs: list[Port] = [
        ("positive", "float32", ["N", 7]),
        ("winner", "int64", ["N"]),
        ("changed", "bool", ["N", 7]),
    ]
    return make_part(nodes, [("x", "float32", ["N", 7])], outputs)


def half_part() -> Part:
    """Arithmetic in float16."""
    nodes = [helper.make_node("Mul", ["x", "x"], ["s"]), helper.make_node("Sqrt", ["s"], ["y"])]
    return make_part(nodes, [("x", "float16", ["N", 9])], [("y", "float16", ["N", 9])])


def double_part() -> Part:
    """Arithmetic in float64, and a cast to uint8 and int32."""
    nodes = [
        helper.make_node("Abs", ["x"], ["y"]),
        helper.make_node("Cast", ["y"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Cast", ["x"], ["ints"], to=TensorProto.INT32),
    ]
    outputs: list[Port] = [("y", "float64", ["N", 4]), ("bytes", "uint8", ["N", 4]), ("ints", "int32", ["N", 4])]
    return make_part(nodes, [("x", "float64", ["N", 4])], outputs)


def scalar_part() -> Part:
    """A scalar in and a scalar out."""
    nodes = [helper.make_node("Mul", ["x", "scale"], ["s"]), helper.make_node("ReduceSum", ["s"], ["y"], keepdims=0)]
    inputs: list[Port] = [("x", "float32", ["N", 4]), ("scale", "float32", [])]
    return make_part(nodes, inputs, [("y", "float32", [])])


def fixed_part() -> Part:
    """A batch of two and no other."""
    return make_part([helper.make_node("Tanh", ["x"], ["y"])], [("x", "float32", [2, 3])], [("y", "float32", [2, 3])])


PARTS = {
    "conv": conv_part,
    "gemm": gemm_part,
    "several-inputs": several_inputs_part,
    "several-outputs": several_outputs_part,
    "half": half_part,
    "double": double_part,
    "scalar": scalar_part,
    "fixed": fixed_part,
}


def random_inputs(part: Part, *, batch: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw inputs for a part; its free dimensions take the extent ``batch``."""
    generator = np.random.default_rng(seed)
    arrays = {}
    for tensor, value in zip(part.inputs, part.proto.graph.input, strict=True):
        shape = [d.dim_value if d.HasField("dim_value") else batch for d in value.type.tensor_type.shape.dim]
        if tensor.dtype.startswith("float"):
            arrays[tensor.name] = np.asarray(generator.standard_normal(shape) * 3, dtype=tensor.dtype)
        else:
            arrays[tensor.name] = np.asarray(generator.integers(0, 2, shape), dtype=tensor.dtype)
    return arrays


def save(part: Part, folder: Path) -> Path:
    """Write a part as a bare ``.onnx`` file named after it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{part.name}.onnx"
    path.write_bytes(part.proto.SerializeToString())
    return path
