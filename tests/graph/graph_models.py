"""Models for the graph room's tests: random directed acyclic graphs, and nets with the shapes that are hard to cut."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from siniantrust.graph import Part

OPSET = 18


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str | None]],
    outputs: Mapping[str, Sequence[int | str | None]],
    constants: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = OPSET,
    value_info: Sequence[onnx.ValueInfoProto] = (),
) -> onnx.ModelProto:
    """Build a float32 model."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
        value_info=list(value_info),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def run(proto: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a model in ONNX Runtime on one thread, without its optimiser, so that parts and whole compute alike."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    wanted = {each.name: inputs[each.name] for each in session.get_inputs()}
    return dict(zip(names, session.run(names, wanted), strict=True))


def run_parts(parts: Sequence[Part], inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run parts in order over one pool of values, as ``split`` defines their composition."""
    pool = dict(inputs)
    for part in parts:
        pool |= run(part.proto, {tensor.name: pool[tensor.name] for tensor in part.inputs})
    return pool


def residual(blocks: int, *, channels: int = 2, size: int = 4) -> onnx.ModelProto:
    """Build conv-relu-conv, plus the block's input, relu; ``blocks`` times, behind a first convolution."""
    rng = np.random.default_rng(0)
    weights = {
        f"w{index}": rng.normal(0, 0.3, (channels, channels, 3, 3)).astype(np.float32)
        for index in range(2 * blocks + 1)
    }

    def conv(source: str, weight: str, target: str, name: str) -> onnx.NodeProto:
        return helper.make_node("Conv", [source, weight], [target], name=name, kernel_shape=[3, 3], pads=[1] * 4)

    nodes = [conv("x", "w0", "stem", "stem")]
    last = "stem"
    for b in range(blocks):
        out = "y" if b == blocks - 1 else f"out{b}"
        nodes += [
            conv(last, f"w{2 * b + 1}", f"a{b}", f"conv_a{b}"),
            helper.make_node("Relu", [f"a{b}"], [f"r{b}"], name=f"relu_a{b}"),
            conv(f"r{b}", f"w{2 * b + 2}", f"b{b}", f"conv_b{b}"),
            helper.make_node("Add", [f"b{b}", last], [f"s{b}"], name=f"add{b}"),
            helper.make_node("Relu", [f"s{b}"], [out], name=f"relu_b{b}"),
        ]
        last = out
    shape: list[int | str | None] = ["N", channels, size, size]
    return model_of(nodes, {"x": shape}, {"y": shape}, weights)


def chain(length: int) -> onnx.ModelProto:
    """Build ``length`` Tanh nodes in a row."""
    nodes = [
        helper.make_node("Tanh", ["x" if i == 0 else f"t{i}"], ["y" if i == length - 1 else f"t{i + 1}"])
        for i in range(length)
    ]
    return model_of(nodes, {"x": ["N", 3, 4, 4]}, {"y": ["N", 3, 4, 4]})


def inception() -> onnx.ModelProto:
    """Build two blocks of three branches of unequal length that a Concat joins."""
    rng = np.random.default_rng(1)
    constants: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []

    def conv(source: str, target: str, channels: tuple[int, int]) -> None:
        constants[f"w_{target}"] = rng.normal(0, 0.3, (channels[1], channels[0], 1, 1)).astype(np.float32)
        nodes.append(helper.make_node("Conv", [source, f"w_{target}"], [target], name=target, kernel_shape=[1, 1]))

    last, width = "x", 3
    for b in range(2):
        conv(last, f"p{b}", (width, 4))
        conv(f"p{b}", f"q{b}_1", (4, 2))
        conv(f"p{b}", f"q{b}_2", (4, 2))
        conv(f"q{b}_2", f"q{b}_2b", (2, 2))
        nodes.append(
            helper.make_node("MaxPool", [f"p{b}"], [f"q{b}_3"], name=f"pool{b}", kernel_shape=[3, 3], pads=[1] * 4)
        )
        last, width = f"cat{b}", 8
        nodes.append(helper.make_node("Concat", [f"q{b}_1", f"q{b}_2b", f"q{b}_3"], [last], name=last, axis=1))
    return model_of(nodes, {"x": ["N", 3, 5, 5]}, {last: ["N", 8, 5, 5]}, constants)


@dataclass
class _Growing:
    """A random graph as it grows: the width c of every value (N, c, 4), and the values without a batch."""

    widths: dict[str, int]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    unbatched: set[str] = field(default_factory=set)

    def add(self, op: str, a: str, b: str, out: str) -> None:
        """Add a node of operator ``op``, or of one that fits where ``op`` does not."""
        op = self._fitting(op, a, b)
        widths, out_width, outputs, sources = self.widths, self.widths[a], [out], [a]
        attributes: dict[str, int] = {}
        if op == "MatMul":
            sources = [a, "w"]
        elif op in ("Add", "Mul"):
            sources = [a, b]
        elif op == "Concat":
            sources, out_width, attributes = [a, b], widths[a] + widths[b], {"axis": 1}
        elif op == "Split":
            outputs, out_width, attributes = [out, f"{out}b"], out_width // 2, {"axis": 1, "num_outputs": 2}
        elif op == "DequantizeLinear":
            sources, out_width = ["q", "scale"], 2
        node = helper.make_node(op, sources, outputs)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        widths.update(dict.fromkeys(outputs, out_width))
        if self.unbatched.issuperset(set(sources) - {"w", "q", "scale"}):
            self.unbatched.update(outputs)

    def _fitting(self, op: str, a: str, b: str) -> str:
        alike = (a in self.unbatched) == (b in self.unbatched)  # a Concat of N items with one is wrong for most N
        if op in ("Add", "Mul") and self.widths[a] != self.widths[b]:
            op = "Concat"
        if op == "Concat" and (self.widths[a] + self.widths[b] > 16 or not alike):
            op = "Relu"
        return "MatMul" if op == "Split" and self.widths[a] % 2 else op

    def loose_ends(self, most: int) -> list[str]:
        """Join batched values that nothing reads until ``most`` are left, so that most nodes matter; return those."""
        read = {name for node in self.nodes for name in node.input}
        ends = [name for name in self.batched() if name not in read] or self.batched()[-1:]
        while len(ends) > most:
            a, b, out = ends.pop(), ends.pop(), f"end{len(self.nodes)}"
            self.nodes.append(helper.make_node("Concat", [a, b], [out], axis=1))
            self.widths[out] = self.widths[a] + self.widths[b]
            ends.insert(0, out)
        return ends

    def batched(self) -> list[str]:
        """Return the node outputs that carry the batch."""
        made = [name for node in self.nodes for name in node.output]
        return [name for name in made if name not in self.unbatched]


@st.composite
def random_models(
    draw: st.DrawFn, *, max_nodes: int = 12, free_nodes: bool = True, shuffled: bool | None = None
) -> onnx.ModelProto:
    """Draw a small model: branches, residuals, several inputs and outputs, several outputs per node, free nodes.

    Free nodes depend on no input and are not folded. The nodes may stand in any order, unless ``shuffled`` is given.
    """
    rng = random.Random(draw(st.integers(0, 2**32 - 1)))
    reach = rng.randint(1, 4)  # 1 gives chains and short skips, 4 gives bushes
    inputs = [f"x{index}" for index in range(rng.choice((1, 1, 1, 2, 3)))]
    graph = _Growing(dict.fromkeys(inputs, 2))
    operators = ["Relu", "Tanh", "MatMul", "Add", "Add", "Mul", "Concat", "Split", "Identity"]
    operators += ["DequantizeLinear"] if free_nodes else []
    for index in range(rng.randint(1, max_nodes)):
        names = list(graph.widths)
        graph.add(rng.choice(operators), rng.choice(names[-reach:]), rng.choice(names[-2 * reach :]), f"v{index}")
    if not graph.batched():
        graph.add("Relu", inputs[0], inputs[0], "last")
    ends = graph.loose_ends(rng.randint(1, 2))
    outputs = dict.fromkeys([*ends, *rng.sample(graph.batched(), rng.choice((0, 0, 0, 1)))])
    if draw(st.booleans()) if shuffled is None else shuffled:
        rng.shuffle(graph.nodes)
    constants: dict[str, np.ndarray] = {
        "w": np.random.default_rng(0).normal(0, 0.5, (4, 4)).astype(np.float32),
        "q": np.arange(8, dtype=np.uint8).reshape(1, 2, 4),
        "scale": np.array(0.1, dtype=np.float32),
    }
    return model_of(
        graph.nodes,
        {name: ["N", graph.widths[name], 4] for name in inputs},
        {name: ["N", graph.widths[name], 4] for name in outputs},
        constants,
    )


def random_inputs(proto: onnx.ModelProto, *, batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw float32 arrays for the inputs of ``proto``."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    for value in proto.graph.input:
        shape = [dim.dim_value or batch for dim in value.type.tensor_type.shape.dim]
        arrays[value.name] = rng.normal(0, 1, shape).astype(np.float32)
    return arrays
