"""Small networks for the tests of exact masks, with an integer reference of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from siniantrust.graph import Model, load_model
from siniantrust.masking.exact import (
    Arithmetic,
    ExactSession,
    Program,
    Query,
    build_program,
    calibrate,
    offerable,
)
from siniantrust.odla import DeviceSpec

SIDE = 9
CPU = DeviceSpec("cpu", options={"threads": 1})
Arrays = Mapping[str, np.ndarray]


def residual_network(seed: int = 0) -> onnx.ModelProto:
    """Return a network with what the arrangement has to cope with.

    Strided, dilated and pointwise convolutions, a shared input, a residual sum, pooling and a dense layer.
    """
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.normal(0, 0.3, (6, 3, 3, 3)),
        "b1": rng.normal(0, 0.1, 6),
        "w2": rng.normal(0, 0.3, (6, 6, 3, 3)),
        "w3": rng.normal(0, 0.3, (6, 6, 1, 1)),
        "b3": rng.normal(0, 0.1, 6),
        "w4": rng.normal(0, 0.3, (6, 4)),
        "b4": rng.normal(0, 0.1, 4),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="stem", pads=[1, 0, 1, 1], strides=[2, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="stem.relu"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="body", pads=[2, 2, 2, 2], dilations=[2, 2]),
        helper.make_node("Conv", ["r1", "w3", "b3"], ["c3"], name="shortcut"),
        helper.make_node("Add", ["c2", "c3"], ["s"], name="join"),
        helper.make_node("Relu", ["s"], ["r2"], name="join.relu"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["y"], name="dense", alpha=0.5, beta=2.0),
    ]
    return _model(nodes, [3, SIDE, SIDE], [4], weights)


def trunk_network(seed: int = 0) -> onnx.ModelProto:
    """Return a network of what is pooled, added, and sent again: a trunk with a residual block, in 8 bits."""
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {
        "w1": rng.normal(0, 0.3, (6, 3, 3, 3)),
        "b1": rng.normal(0, 0.1, 6),
        "w2": rng.normal(0, 0.3, (6, 6, 3, 3)),
        "w3": rng.normal(0, 0.3, (5, 6, 1, 1)),
        "w4": rng.normal(0, 0.3, (6, 5, 3, 3)),
        "w5": rng.normal(0, 0.3, (4, 6, 1, 1)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="stem", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], name="stem.relu"),
        helper.make_node("MaxPool", ["r1"], ["p1"], name="pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        helper.make_node("Conv", ["p1", "w2"], ["t1"], name="trunk", pads=[1] * 4),
        helper.make_node("Conv", ["t1", "w3"], ["c2"], name="narrow"),
        helper.make_node("Relu", ["c2"], ["r2"], name="narrow.relu"),
        helper.make_node("Conv", ["r2", "w4"], ["c3"], name="wide", pads=[1] * 4),
        helper.make_node("Add", ["t1", "c3"], ["s1"], name="join"),
        helper.make_node("Relu", ["s1"], ["r3"], name="join.relu"),
        helper.make_node("Conv", ["r3", "w5"], ["c4"], name="head"),
        helper.make_node("GlobalAveragePool", ["c4"], ["p2"], name="mean"),
        helper.make_node("Flatten", ["p2"], ["y"], name="flat"),
    ]
    return _model(nodes, [3, SIDE, SIDE], [4], weights)


def attention_network(seed: int = 0) -> onnx.ModelProto:
    """Return one head of self-attention over 5 tokens of 8 numbers, with its projections as matrix products."""
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {name: rng.normal(0, 0.4, (8, 8)) for name in ("wq", "wk", "wv", "wo")}
    nodes = [
        helper.make_node("MatMul", ["x", "wq"], ["q"], name="query"),
        helper.make_node("MatMul", ["x", "wk"], ["k"], name="key"),
        helper.make_node("MatMul", ["x", "wv"], ["v"], name="value"),
        helper.make_node("Transpose", ["k"], ["kt"], name="turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["a"], name="scores"),
        helper.make_node("Softmax", ["a"], ["p"], name="softmax", axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["o"], name="mix"),
        helper.make_node("MatMul", ["o", "wo"], ["y"], name="out"),
    ]
    return _model(nodes, [5, 8], [5, 8], weights)


def encoder_network(seed: int = 0, *, tokens: int = 6, width: int = 16, heads: int = 2) -> onnx.ModelProto:
    """Return a transformer encoder's block (pre-norm) over tokens that are given as numbers, and a classifier.

    Written as exporters leave it: matrix products with their biases as sums, GELU by its error function.
    """
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []

    def op(kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"{name}.out"], name=name, **attributes))
        return f"{name}.out"

    def constant(name: str, value: np.ndarray) -> str:
        weights[name] = np.asarray(value)
        return name

    def dense(x: str, name: str, before: int, after: int) -> str:
        weight = constant(f"{name}.w", rng.normal(0, before**-0.5, (before, after)))
        return op(
            "Add", [constant(f"{name}.b", rng.normal(0, 0.1, after)), op("MatMul", [x, weight], name)], f"{name}.bias"
        )

    def norm(x: str, name: str) -> str:
        gain, shift = constant(f"{name}.g", rng.normal(1, 0.1, width)), constant(f"{name}.s", rng.normal(0, 0.1, width))
        return op("LayerNormalization", [x, gain, shift], name, axis=-1)

    def split(x: str, name: str, perm: list[int]) -> str:
        return op("Transpose", [op("Reshape", [x, "heads"], f"{name}.heads")], f"{name}.turn", perm=perm)

    normed = norm("x", "norm1")
    query, key, value = (dense(normed, name, width, width) for name in ("query", "key", "value"))
    scores = op("MatMul", [split(query, "q", [0, 2, 1, 3]), split(key, "k", [0, 2, 3, 1])], "scores")
    scaled = op("Mul", [scores, constant("temperature", np.array((width // heads) ** -0.5))], "scaled")
    mixed = op("MatMul", [op("Softmax", [scaled], "softmax", axis=-1), split(value, "v", [0, 2, 1, 3])], "mix")
    joined = op("Reshape", [op("Transpose", [mixed], "back", perm=[0, 2, 1, 3]), "whole"], "joined")
    after = op("Add", ["x", dense(joined, "out", width, width)], "attended")
    wide = dense(norm(after, "norm2"), "wide", width, 4 * width)
    tail = op("Erf", [op("Mul", [wide, constant("root", np.array(0.5**0.5))], "scaled.wide")], "erf")
    half = op("Mul", [wide, constant("half", np.array(0.5))], "halved")
    gelu = op("Mul", [half, op("Add", [tail, constant("one", np.array(1.0))], "lifted")], "gelu")
    last = op("Add", [after, dense(gelu, "narrow", 4 * width, width)], "block")
    mean = op("ReduceMean", [norm(last, "norm3")], "mean", axes=[1], keepdims=0)
    nodes.append(helper.make_node("Gemm", [mean, constant("c.w", rng.normal(0, 0.3, (width, 4)))], ["y"], name="class"))
    made = _model(nodes, [tokens, width], [4], weights)
    shapes = {"heads": [0, tokens, heads, width // heads], "whole": [0, tokens, width]}
    made.graph.initializer.extend(
        numpy_helper.from_array(np.array(size, np.int64), name) for name, size in shapes.items()
    )
    return made


def normalised_network(seed: int = 0) -> onnx.ModelProto:
    """Return convolutions with batch normalisation that nobody folded, before a sum and after one."""
    rng = np.random.default_rng(seed)
    weights = {"w1": rng.normal(0, 0.3, (6, 3, 3, 3)), "w2": rng.normal(0, 0.3, (6, 6, 3, 3))}
    weights["b1"] = rng.normal(0, 0.1, 6)
    for name in ("n1", "n2"):
        weights |= {f"{name}.g": rng.normal(0, 1, 6), f"{name}.s": rng.normal(0, 1, 6)}
        weights |= {f"{name}.m": rng.normal(0, 1, 6), f"{name}.v": rng.uniform(0.5, 2, 6)}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="first", pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c1", "n1.g", "n1.s", "n1.m", "n1.v"], ["m1"], name="norm1"),
        helper.make_node("Relu", ["m1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="second", pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c2", "n2.g", "n2.s", "n2.m", "n2.v"], ["m2"], name="norm2"),
        helper.make_node("Add", ["m2", "r1"], ["s2"], name="join"),
        helper.make_node("Relu", ["s2"], ["y"], name="relu2"),
    ]
    return _model(nodes, [3, SIDE, SIDE], [6, SIDE, SIDE], weights)


def downsampling_network(seed: int = 0) -> onnx.ModelProto:
    """Return two residual blocks: one that halves the image, whose shortcut is a layer too, and one that keeps it.

    Of the first one's two addends, one is normalised and the other has a bias that is added.
    """
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {
        "w1": rng.normal(0, 0.3, (6, 3, 3, 3)),
        "wa": rng.normal(0, 0.4, (4, 6, 1, 1)),
        "wb": rng.normal(0, 0.3, (5, 4, 3, 3)),
        "bb": rng.normal(0, 0.1, 5),
        "wc": rng.normal(0, 0.4, (8, 5, 1, 1)),
        "ws": rng.normal(0, 0.4, (8, 6, 1, 1)),
        "bs": rng.normal(0, 0.3, (8, 1, 1)),
        "wd": rng.normal(0, 0.3, (8, 8, 3, 3)),
        "wy": rng.normal(0, 0.4, (8, 4)),
    }
    weights |= {"n.g": rng.normal(0, 1, 8), "n.s": rng.normal(0, 1, 8)}
    weights |= {"n.m": rng.normal(0, 1, 8), "n.v": rng.uniform(0.5, 2, 8)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], name="stem", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], name="stem.relu"),
        helper.make_node("Conv", ["r1", "wa"], ["ca"], name="a"),
        helper.make_node("Relu", ["ca"], ["ra"], name="a.relu"),
        helper.make_node("Conv", ["ra", "wb", "bb"], ["cb"], name="b", pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["cb"], ["rb"], name="b.relu"),
        helper.make_node("Conv", ["rb", "wc"], ["cc"], name="c"),
        helper.make_node("BatchNormalization", ["cc", "n.g", "n.s", "n.m", "n.v"], ["nc"], name="c.norm"),
        helper.make_node("Conv", ["r1", "ws"], ["cs"], name="shortcut", strides=[2, 2]),
        helper.make_node("Add", ["cs", "bs"], ["ss"], name="shortcut.bias"),
        helper.make_node("Add", ["nc", "ss"], ["s1"], name="join"),
        helper.make_node("Relu", ["s1"], ["r2"], name="join.relu"),
        helper.make_node("Conv", ["r2", "wd"], ["cd"], name="d", pads=[1] * 4),
        helper.make_node("Add", ["cd", "r2"], ["s2"], name="keep"),
        helper.make_node("Relu", ["s2"], ["r3"], name="keep.relu"),
        helper.make_node("GlobalAveragePool", ["r3"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "wy"], ["y"], name="dense"),
    ]
    return _model(nodes, [3, SIDE, SIDE], [4], weights)


def _model(
    nodes: list[onnx.NodeProto], shape_in: list[int], shape_out: list[int], weights: dict[str, np.ndarray]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape_in])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", *shape_out])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def loaded(proto: onnx.ModelProto, folder: Path) -> Model:
    """Return the model as the graph room reads it."""
    path = folder / "model.onnx"
    onnx.save(proto, path)
    return load_model(path)


def items(model: Model, count: int, seed: int = 1) -> np.ndarray:
    """Return ``count`` random items of the model's input."""
    shape = model.inputs[0].shape[1:]
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def program_of(model: Model, *, arithmetic: Arithmetic = "int8") -> Program:
    """Return the model arranged with everything on devices that can be, calibrated on random items."""
    offered = [name for name, reason in offerable(model).items() if reason is None]
    entries = {model.proto.graph.node[node.index].input[0] for node in model.nodes if node.name in offered}
    scales = calibrate(model, sorted(entries), {"x": items(model, 64)})
    return build_program(model, offered, scales, arithmetic=arithmetic)


NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    "residual": residual_network,
    "attention": attention_network,
    "encoder": encoder_network,
    "normalised": normalised_network,
    "trunk": trunk_network,
    "downsampling": downsampling_network,
}


def begun(session: ExactSession, x: np.ndarray) -> Query:
    """Return a request whose corrections the session keeps."""
    query = session.trusted.begin({"x": x})
    session.corrections.keep(query.prepared)
    return query


def corrected(session: ExactSession, query: Query, answers: Mapping[str, np.ndarray] | None = None) -> Arrays:
    """Return a device's answers, or these, with corrections added."""
    if answers is None:
        answers = session._devices["cpu"][query.exchange].run(query.request or {})
    return session.corrections.added(query.exchange, query.queries, answers)
