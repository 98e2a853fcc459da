"""Strength reduction: linear masks that become part of the weights before them, so that they cost nothing or less."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from siniantrust.masking._record import read_records

# What treats every channel by itself, so that leaving channels out before it is leaving them out behind it.
_BY_CHANNEL = {
    *("Relu", "LeakyRelu", "Elu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"),
}


def fold_linear_masks(proto: onnx.ModelProto) -> None:
    """Put linear masks into the convolution before them, in place.

    A choice of channels leaves the others out of the convolution's weights, across activations and pooling in between.
    A mixture of channels right behind a convolution is multiplied into its weights. A clip takes the place of a ReLU
    before it, across sums and products with a number, and such a sum right behind a convolution goes into its bias. The
    masked values are the same up to rounding. What is left of the mask is the
    other side's.
    """
    masked = [record.tensor for record in read_records(proto)]
    prefixes, crossing = tuple(f"{name}_mask_" for name in masked), {f"{name}_masked" for name in masked}
    for node in list(proto.graph.node):
        # What reads the masked value is the other side's.
        if prefixes and node.name.startswith(prefixes) and crossing.isdisjoint(node.input):
            graph = _Graph(proto.graph)
            if node.op_type == "Gather" and _integer(node, "axis", 0) == 1:
                _leave_out(graph, node)
            elif node.op_type == "Conv":
                _multiply(graph, node)
            elif node.op_type == "Clip":
                _replace_relu(graph, node)


class _Graph:
    """A graph with who makes and who reads each value."""

    def __init__(self, proto: onnx.GraphProto) -> None:
        self.proto = proto
        self._makers = {output: node for node in proto.node for output in node.output}
        self._readers: dict[str, int] = {value.name: 1 for value in proto.output}
        for node in proto.node:
            for name in node.input:
                self._readers[name] = self._readers.get(name, 0) + 1
        self._stored = {tensor.name: tensor for tensor in proto.initializer}

    def maker(self, name: str) -> onnx.NodeProto | None:
        """Return the node that makes a value which nothing else than the caller reads."""
        return self._makers.get(name) if self._readers.get(name) == 1 else None

    def numbers(self, name: str) -> np.ndarray | None:
        """Return a stored tensor."""
        return numpy_helper.to_array(self._stored[name]) if name in self._stored else None

    def replace(self, conv: onnx.NodeProto, weights: np.ndarray, bias: np.ndarray | None, made: str) -> None:
        """Give a convolution other numbers, under names of their own."""
        dtype = numpy_helper.to_array(self._stored[conv.input[1]]).dtype
        changed = {f"{made}_weights": weights} | ({} if bias is None else {f"{made}_bias": bias})
        self.proto.initializer.extend(
            numpy_helper.from_array(each.astype(dtype), name) for name, each in changed.items()
        )
        conv.input[:] = [conv.input[0], *changed]
        for attribute in list(conv.attribute):
            if attribute.name == "kernel_shape":
                conv.attribute.remove(attribute)

    def store(self, values: np.ndarray, name: str) -> str:
        """Store a tensor, and return its name."""
        self.proto.initializer.append(numpy_helper.from_array(values, name))
        return name

    def remove(self, node: onnx.NodeProto, last: onnx.NodeProto) -> None:
        """Take a node out, whose output ``last`` makes now, and the stored tensors that nothing reads any more."""
        last.output[0] = node.output[0]
        self.proto.node.remove(node)
        del self.proto.value_info[:]  # shapes before the mask are others now; loading infers them
        read = {name for each in self.proto.node for name in each.input} | {value.name for value in self.proto.output}
        for tensor in [each for each in self.proto.initializer if each.name not in read]:
            if not _in_bodies(self.proto, tensor.name):
                self.proto.initializer.remove(tensor)


def _leave_out(graph: _Graph, gather: onnx.NodeProto) -> None:
    chosen = graph.numbers(gather.input[1])
    last = maker = graph.maker(gather.input[0])
    while maker is not None and maker.op_type in _BY_CHANNEL and len(maker.output) == 1:
        maker = graph.maker(maker.input[0])
    found = _numbers_of(graph, maker)
    if chosen is None or chosen.ndim != 1 or last is None or maker is None or found is None:
        return
    weights, bias = found
    has_bias = len(maker.input) > 2  # noqa: PLR2004 - input, weights, bias
    graph.replace(maker, weights[chosen], bias[chosen] if has_bias else None, gather.output[0])
    graph.remove(gather, last)


def _multiply(graph: _Graph, mixture: onnx.NodeProto) -> None:
    before = graph.maker(mixture.input[0])
    found, mixed = _numbers_of(graph, before), _numbers_of(graph, mixture)
    if before is None or found is None or mixed is None or mixed[0].shape[2:] != (1, 1):
        return
    weights, bias = found
    matrix = mixed[0][:, :, 0, 0].astype(np.float64)
    graph.replace(before, np.tensordot(matrix, weights, axes=1), matrix @ bias + mixed[1], mixture.output[0])
    graph.remove(mixture, before)


def _replace_relu(graph: _Graph, clip: onnx.NodeProto) -> None:
    """Let a clip take the place of a ReLU before it, and let a number that is added between go into a convolution."""
    between = _between(graph, clip)
    first = between[0] if between else clip
    relu, bounds = graph.maker(first.input[0]), _bounds(graph, clip)
    if bounds is None:
        return
    if relu is not None and relu.op_type == "Relu":
        least = np.zeros_like(bounds[0])  # of what the ReLU gives, as it arrives at the clip
        for node in between:
            number = graph.numbers(node.input[1])
            least = least + number if node.op_type == "Add" else least * number
        if bounds[1] < least:
            return
        first.input[0] = relu.input[0]
        clip.input[1] = graph.store(np.asarray(np.maximum(bounds[0], least)), f"{clip.output[0]}_low")
        graph.remove(relu, relu)
    if between and first.op_type == "Add":
        _shift(graph, first)


def _between(graph: _Graph, clip: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return the sums with a number and products with one above 0 before a clip, in order, that nothing else reads."""
    found: list[onnx.NodeProto] = []
    node = graph.maker(clip.input[0])
    while node is not None and node.op_type in ("Add", "Mul"):
        number = graph.numbers(node.input[1])
        if number is None or number.size != 1 or (node.op_type == "Mul" and number <= 0):
            break
        found.insert(0, node)
        node = graph.maker(node.input[0])
    return found


def _shift(graph: _Graph, add: onnx.NodeProto) -> None:
    """Put a number that is added behind a convolution into its bias."""
    number, conv = graph.numbers(add.input[1]), graph.maker(add.input[0])
    found = _numbers_of(graph, conv)
    if conv is None or found is None or number is None:
        return
    graph.replace(conv, found[0], found[1] + number, add.output[0])
    graph.remove(add, conv)


def _bounds(graph: _Graph, clip: onnx.NodeProto) -> tuple[np.ndarray, np.ndarray] | None:
    low, high = (graph.numbers(name) for name in clip.input[1:3])
    return None if low is None or high is None else (low, high)


def _numbers_of(graph: _Graph, conv: onnx.NodeProto | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Return weights and bias (zeros where there is none) of a convolution in one group; None for anything else."""
    if conv is None or conv.op_type != "Conv" or _integer(conv, "group", 1) != 1:
        return None
    weights = graph.numbers(conv.input[1])
    if weights is None:
        return None
    bias = graph.numbers(conv.input[2]) if len(conv.input) > 2 else np.zeros(len(weights))  # noqa: PLR2004
    return None if bias is None else (weights, bias)


def _integer(node: onnx.NodeProto, name: str, default: int) -> int:
    found: Mapping[str, int] = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    return found.get(name, default)


def _in_bodies(graph: onnx.GraphProto, name: str) -> bool:
    """Say whether a graph inside a node reads a value."""
    bodies = [body for node in graph.node for attribute in node.attribute for body in (attribute.g, *attribute.graphs)]
    return any(name in node.input or _in_bodies(body, name) for body in bodies for node in body.node)
