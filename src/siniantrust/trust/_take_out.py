"""Taking the numbers out of a graph: what is left is its structure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TypeVar

import onnx
import onnx.inliner

from siniantrust.errors import TrustError

# An attribute with more numbers than this is taken for learned ones (trees, embeddings), not for strides or axes.
_MAX_ATTRIBUTE_NUMBERS = 64
_ONNX_DOMAINS = ("", "ai.onnx")
# Of these, an enclave without an ONNX library reads the numbers itself: they are always in ``raw_data``.
_PLAIN = (onnx.TensorProto.FLOAT, onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT32)

_Message = TypeVar("_Message", onnx.NodeProto, onnx.ValueInfoProto)


def take_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """Move the initialisers and constants of ``model`` into a new model, which holds nothing else; return that one.

    Appending the second to the first gives a model that computes what ``model`` did: constants have become
    initialisers, and those of control-flow bodies are now the outer graph's, passed in through an ``Identity``. What
    was moved stays declared in ``model``, with its type and shape and in the same order.

    Raises:
        TrustError: if a number cannot be moved: external data, a sparse constant inside a body, or an attribute of many
            numbers.
    """
    if model.functions:
        model.CopyFrom(onnx.inliner.inline_local_functions(model))
    weights = onnx.ModelProto()
    taken = set(itertools.chain.from_iterable(map(_names, _graphs(model.graph))))
    for graph in _graphs(model.graph):
        _empty(graph, weights.graph, is_body=graph is not model.graph, taken=taken)
    _declare(model.graph, weights.graph)
    return weights


def _declare(graph: onnx.GraphProto, weights: onnx.GraphProto) -> None:
    moved = {tensor.name for tensor in weights.initializer}
    kept = [_copy(entry) for entry in graph.value_info if entry.name not in moved]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    graph.value_info.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in weights.initializer
    )


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield the bodies inside ``graph``, innermost first, and then ``graph``."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)
            for body in attribute.graphs:
                yield from _graphs(body)
    yield graph


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield every value name that ``graph`` mentions."""
    for entry in (*graph.input, *graph.output, *graph.initializer):
        yield entry.name
    for node in graph.node:
        yield from node.input
        yield from node.output


def _empty(graph: onnx.GraphProto, weights: onnx.GraphProto, *, is_body: bool, taken: set[str]) -> None:
    """Move the numbers of one graph, not of the bodies inside it."""
    outputs = {entry.name for entry in graph.output}
    passed_in = []
    sparse = list(graph.sparse_initializer)
    for tensor in (*graph.initializer, *_constants(graph, sparse)):
        _check_tensor(tensor)
        moved = weights.initializer.add()
        moved.CopyFrom(tensor)
        if tensor.data_type in _PLAIN and not tensor.HasField("raw_data"):
            moved.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
        if is_body or tensor.name in outputs:
            moved.name = _fresh(tensor.name, taken)
            passed_in.append(onnx.helper.make_node("Identity", [moved.name], [tensor.name], name=moved.name))
    if sparse and is_body:
        raise TrustError(f"sealing: graph {graph.name}: sparse constants inside a control-flow body cannot be sealed")
    weights.sparse_initializer.extend(sparse)
    for node in graph.node:
        _check_attributes(node)
    if passed_in:
        nodes = [*passed_in, *map(_copy, graph.node)]
        del graph.node[:]
        graph.node.extend(nodes)
    del graph.initializer[:], graph.sparse_initializer[:]


def _constants(graph: onnx.GraphProto, sparse: list[onnx.SparseTensorProto]) -> list[onnx.TensorProto]:
    """Remove the ``Constant`` nodes and return their values; sparse ones are appended to ``sparse``."""
    found = []
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if node.op_type != "Constant" or node.domain not in _ONNX_DOMAINS:
            continue
        (attribute,) = node.attribute
        if attribute.name == "sparse_value":
            value = onnx.SparseTensorProto()
            value.CopyFrom(attribute.sparse_tensor)
            value.values.name = node.output[0]
            sparse.append(value)
        else:
            found.append(_as_tensor(attribute, node.output[0]))
        del graph.node[index]
    return found


def _as_tensor(attribute: onnx.AttributeProto, name: str) -> onnx.TensorProto:
    """Return a ``Constant`` node's value as a tensor, whichever of its attributes holds it (operator Constant-13)."""
    dtypes = {"float": onnx.TensorProto.FLOAT, "int": onnx.TensorProto.INT64, "string": onnx.TensorProto.STRING}
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(value)
        tensor.name = name
        return tensor
    kind = attribute.name.removeprefix("value_")
    if kind in dtypes:
        return onnx.helper.make_tensor(name, dtypes[kind], [], [value])
    return onnx.helper.make_tensor(name, dtypes[kind.removesuffix("s")], [len(value)], value)


def _check_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise TrustError(f"sealing: initialiser {tensor.name} lies in another file; load it into the model first")


def _check_attributes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        tensors = [*attribute.tensors, *([attribute.t] if attribute.HasField("t") else [])]
        is_sparse = attribute.HasField("sparse_tensor") or bool(attribute.sparse_tensors)
        many = max(len(attribute.floats), len(attribute.ints), len(attribute.strings)) > _MAX_ATTRIBUTE_NUMBERS
        if many or is_sparse or any(list(tensor.dims) not in ([], [1]) for tensor in tensors):
            raise TrustError(
                f"sealing: node {node.name or node.op_type}: attribute {attribute.name} holds many numbers, which "
                "would stay readable; only initialisers and constants can be sealed"
            )


def _fresh(name: str, taken: set[str]) -> str:
    """Return a name that no value of the model has yet, and take it."""
    fresh = next(found for number in itertools.count() if (found := f"{name}.sealed{number}") not in taken)
    taken.add(fresh)
    return fresh


def _copy(message: _Message) -> _Message:
    copied = type(message)()
    copied.CopyFrom(message)
    return copied
