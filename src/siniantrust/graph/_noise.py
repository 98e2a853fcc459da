"""Random operators as inputs: noise that whoever runs a part must supply, instead of the runtime's own generator."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto, helper

from siniantrust.errors import ModelError
from siniantrust.graph._noise_laws import composed_laws
from siniantrust.graph._shapes import read_type
from siniantrust.graph._types import Tensor
from siniantrust.graph._uses import makes, subgraphs, uses

NOISE_PREFIX = "siniantrust.noise."
"""How the reserved inputs' names begin; law, offset, factor and the value that is drawn follow, with colons."""

_LAWS = {
    "RandomNormal": "normal",
    "RandomNormalLike": "normal",
    "RandomUniform": "uniform",
    "RandomUniformLike": "uniform",
}
_OTHERS = ("Bernoulli", "Multinomial")
_FLOATS = {TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE}
_TRAINING_MODE = 2  # Dropout's third input


def feed_noise(proto: onnx.ModelProto, *, origin: str) -> None:
    """Turn every random operator of ``proto`` into a reserved input, in place.

    The input holds fresh numbers of the shape and type that the operator would draw. Its name says how: numbers of the
    standard law (normal with mean 0 and variance 1, or even on [0, 1)) times a factor plus an offset. An Identity of
    the operator's name stands in its place. ``seed`` is dropped: noise that can be drawn again is none.

    What the graph makes of drawn numbers alone becomes the reserved input where it has a law of its own
    (``composed_laws``): nothing is left to compute of it when a request comes. Nodes that only gave an operator
    its shape are gone too.

    Raises:
        ModelError: naming a random operator that cannot be fed so.
    """
    for name, why in unfed_noise(proto).items():
        raise ModelError(f"{origin}: node '{name}': {why}")
    values = _types(proto.graph)
    laws = {
        value: found
        for value, found in composed_laws(proto.graph).items()
        if len({_text(_drawn(draw, values)) for draw in found.draws}) == 1
    }
    gone = {name for found in laws.values() for name in found.inner} - laws.keys()
    nodes: list[onnx.NodeProto] = []
    lost: set[str] = set()
    for node in proto.graph.node:
        law = laws.get(node.output[0]) if node.output else None
        if node.output and node.output[0] in gone:
            lost.update(node.input)
            continue
        if law is None and node.op_type not in _LAWS:
            nodes.append(copied(node))
            continue
        kind = _drawn(node if law is None else law.draws[0], values)
        assert kind is not None  # noqa: S101 - or it would have been refused
        reserved = _reserved(node) if law is None else f"{NOISE_PREFIX}{law.law}:{node.output[0]}"
        proto.graph.input.add(name=reserved).type.CopyFrom(kind)
        nodes.append(helper.make_node("Identity", [reserved], [node.output[0]], name=node.name))
        lost.update(node.input)
    nodes = still_read(nodes, lost, {value.name for value in proto.graph.output})
    put_nodes(proto.graph, nodes)


def put_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Let a graph have ``nodes`` in place of its own, without the types of values that no node makes any more."""
    made = {name for node in nodes for name in makes(node)}
    unmade = {name for node in graph.node for name in makes(node)} - made
    declared = [value for value in graph.value_info if value.name not in unmade]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.value_info.extend(declared)


def still_read(nodes: list[onnx.NodeProto], lost: set[str], leaving: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes without those that make only values in ``lost``, or what these are made of, and are not read."""
    lost, read = set(lost), set(leaving)
    kept = []
    for node in reversed(nodes):
        if lost.issuperset(makes(node)) and read.isdisjoint(makes(node)):
            lost.update(uses(node))
            continue
        kept.append(node)
        read.update(uses(node))
    return kept[::-1]


def unfed_noise(proto: onnx.ModelProto) -> dict[str, str]:
    """Return why random operators of ``proto`` cannot become inputs, by the names of their nodes; empty if all can."""
    values = _types(proto.graph)
    refused: dict[str, str] = {}
    for node in proto.graph.node:
        if node.op_type in _LAWS:
            kind = _drawn(node, values)
            if kind is None or kind.tensor_type.elem_type not in _FLOATS:
                refused[node.name] = f"{node.op_type}: the shape or type of what it draws is not known beforehand"
        elif _is_random(node):
            refused[node.name] = f"random operator {node.op_type} cannot be fed from outside; draw uniform numbers"
        elif inner := next((each for each in _inside(node) if _is_random(each)), None):
            refused[node.name] = f"random operator {inner.op_type} inside its body cannot be fed from outside"
    called = {(node.domain, node.op_type): node.name for node in proto.graph.node}
    for function in proto.functions:
        found = next((node for node in function.node if _is_random(node)), None)
        if found is not None:
            name = called.get((function.domain, function.name), function.name)
            refused[name] = f"random operator {found.op_type} inside a function cannot be fed from outside"
    return refused


def noise_inputs(proto: onnx.ModelProto) -> tuple[Tensor, ...]:
    """Return the reserved inputs of a part, as one batch item sees them."""
    return tuple(read_type(value)[0] for value in proto.graph.input if value.name.startswith(NOISE_PREFIX))


def _is_random(node: onnx.NodeProto) -> bool:
    training = node.op_type == "Dropout" and len(node.input) > _TRAINING_MODE and bool(node.input[_TRAINING_MODE])
    return node.op_type in _LAWS or node.op_type in _OTHERS or training


def _inside(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    return [each for graph in subgraphs(node) for inner in graph.node for each in (inner, *_inside(inner))]


def _types(graph: onnx.GraphProto) -> dict[str, onnx.TypeProto]:
    return {value.name: value.type for value in (*graph.value_info, *graph.output, *graph.input)}


def _drawn(node: onnx.NodeProto, values: dict[str, onnx.TypeProto]) -> onnx.TypeProto | None:
    """Return type and shape of what a random operator draws; None where they are not known."""
    attributes = _attributes(node)
    if "shape" in attributes:
        return helper.make_tensor_type_proto(attributes.get("dtype", TensorProto.FLOAT), attributes["shape"])
    known = values.get(node.input[0]) if node.input else None
    if known is None or not known.tensor_type.HasField("shape"):
        return None
    if any(not (dim.dim_param or dim.HasField("dim_value")) for dim in known.tensor_type.shape.dim):
        return None
    kind = onnx.TypeProto()
    kind.CopyFrom(known)
    kind.tensor_type.elem_type = attributes.get("dtype", known.tensor_type.elem_type)
    return kind


def _text(kind: onnx.TypeProto | None) -> bytes:
    return b"" if kind is None else kind.SerializeToString(deterministic=True)


def _reserved(node: onnx.NodeProto) -> str:
    """Return the name of the input that stands for what ``node`` draws: law, offset and factor, and the value."""
    attributes = _attributes(node)
    law = _LAWS[node.op_type]
    if law == "normal":
        offset, factor = attributes.get("mean", 0.0), attributes.get("scale", 1.0)
    else:
        offset = attributes.get("low", 0.0)
        factor = attributes.get("high", 1.0) - offset
    return f"{NOISE_PREFIX}{law}:{offset!r}:{factor!r}:{node.output[0]}"


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def copied(node: onnx.NodeProto) -> onnx.NodeProto:
    """Return a copy of a node, which may go into another graph."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy
