"""From a file or a message to a ``Model``: read, check, resolve shapes, fold, count."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import onnx

from siniantrust.errors import ModelError
from siniantrust.graph._check import normalise
from siniantrust.graph._costs import cost
from siniantrust.graph._fold import fold_shapes, simplify
from siniantrust.graph._infer import dtype_name
from siniantrust.graph._read import expected_bytes, read_model, require_model
from siniantrust.graph._shapes import Shapes, resolve_shapes
from siniantrust.graph._skeleton import digest
from siniantrust.graph._types import Model, Node, Tensor
from siniantrust.graph._uses import makes, uses


def load_model(source: Path | str | onnx.ModelProto, *, dims: Mapping[str, int] | None = None) -> Model:
    """Load any ONNX model: check it, infer its shapes, fold its constants and count what each node costs.

    A free first dimension that all inputs and outputs share stays free (``Model.batch_symbol``); figures are for one
    item. Any other free dimension needs a value.

    Args:
        source: path of a binary ONNX file (external data beside it is read too), or a model in memory, which is copied.
        dims: values of free dimensions by name; an unnamed one is called ``INPUT.AXIS``.

    Returns:
        The model. Its ``proto`` is sorted and folded; ``sha256`` is of the model as given, wherever its data lay.

    Raises:
        ModelError: if the file is unreadable, no ONNX model, truncated or invalid, holds an operator that its opset
            does not know, or a dimension has no value; the message names the file, node, operator or dimension.
    """
    if isinstance(source, onnx.ModelProto):
        path, origin = None, f"model '{source.graph.name}'"
        require_model(source, origin=origin)
        proto = onnx.ModelProto()
        proto.CopyFrom(source)
    else:
        path, origin = Path(source), f"model {source}"
        proto = read_model(path)
    sha256 = digest(proto)
    normalise(proto, origin=origin)
    for value in (*proto.graph.input, *proto.graph.output):
        if not value.type.HasField("tensor_type"):
            raise ModelError(f"{origin}: '{value.name}' is no tensor; only tensors can enter or leave a model")
    simplify(proto)
    shapes = resolve_shapes(proto, dims or {}, origin=origin)
    while fold_shapes(proto, shapes.fixed):
        simplify(proto)
        shapes = resolve_shapes(proto, {}, origin=origin)
    name = path.stem if path is not None else proto.graph.name or "model"
    return build_model(proto, shapes, name=name, source=path, sha256=sha256, origin=origin)


def build_model(
    proto: onnx.ModelProto, shapes: Shapes, *, name: str, source: Path | None, sha256: str, origin: str
) -> Model:
    """Put together a ``Model`` from a normalised ``proto``, into which the inferred types are written.

    Raises:
        ModelError: if the rank of an output is unknown.
    """
    graph = proto.graph
    for value in (*graph.input, *graph.output):
        kind = shapes.type_of(value.name)
        if kind is not None:
            value.type.CopyFrom(kind)
    ends = {value.name for value in graph.output}
    del graph.value_info[:]
    tensors: dict[str, Tensor] = {}
    for value in graph.input:
        tensor = shapes.tensor(value.name)
        if tensor is not None:
            tensors[value.name] = tensor
    for node in graph.node:
        for output in makes(node):
            tensor, kind = shapes.tensor(output), shapes.type_of(output)
            if tensor is not None:
                tensors[output] = tensor
            if kind is not None and output not in ends:
                graph.value_info.add(name=output).type.CopyFrom(kind)
    constants = {t.name: (math.prod(t.dims), expected_bytes(t)) for t in graph.initializer}
    nodes: list[Node] = []
    for index, node in enumerate(graph.node):
        each = cost(node, shapes.one, constants)
        nodes.append(
            Node(
                index=index,
                name=node.name,
                op_type=node.op_type,
                inputs=uses(node),
                outputs=makes(node),
                flops=each.flops,
                parameters=each.parameters,
                parameter_bytes=each.parameter_bytes,
                activation_bytes=each.activation_bytes,
            )
        )
    return Model(
        name=name,
        source=source,
        sha256=sha256,
        proto=proto,
        inputs=tuple(tensors[value.name] for value in graph.input),
        outputs=tuple(tensors.get(v.name) or _open_output(v.name, shapes, origin=origin) for v in graph.output),
        nodes=tuple(nodes),
        tensors=tensors,
        batch_symbol=shapes.batch_symbol,
    )


def _open_output(name: str, shapes: Shapes, *, origin: str) -> Tensor:
    """Describe an output some of whose dimensions are known at run time only (0 stands for them)."""
    value = shapes.one.get(name)
    if value is None:
        raise ModelError(f"{origin}: the rank of output '{name}' cannot be inferred; declare its shape in the model")
    axis = 0 if shapes.batch_symbol is not None else None
    return Tensor(name, dtype_name(value.elem_type), tuple(size or 0 for size in value.dims), axis)
