"""Shape inference with every dimension known: ONNX's own, helped over values that it cannot follow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import onnx
from onnx import helper, shape_inference

from siniantrust.errors import ModelError
from siniantrust.graph._fold import fold_constants, fold_shapes
from siniantrust.graph._skeleton import skeleton
from siniantrust.graph._uses import makes, subgraphs

Dims = tuple[int | None, ...]
MULTIPLE = re.compile(r"^([1-9][0-9]*)\*(.+)$")


@dataclass(frozen=True)
class Value:
    """What inference found about a value: ONNX element type, and dimensions (None where it could not tell)."""

    elem_type: int
    dims: Dims


@cache
def dtype_name(elem_type: int) -> str:
    """Return numpy's name of an ONNX element type."""
    return str(helper.tensor_dtype_to_np_dtype(elem_type).name)


def infer(proto: onnx.ModelProto, *, symbol: str | None = None, size: int = 1, origin: str) -> dict[str, Value]:
    """Infer the type of every value, in subgraphs too, with the free dimension ``symbol`` set to ``size``.

    Declared types of inner values count only where they come from an operator that ONNX does not know. Where ONNX's
    inference gets stuck (a shape that runs through a Where or an Expand, say), shapes found so far are written into a
    copy of the graph as constants, what follows from them is evaluated, and inference goes on from there.

    Raises:
        ModelError: if types or shapes contradict each other.
    """
    copy = skeleton(proto)
    _drop_inner_types(copy)
    for value in (*copy.graph.input, *copy.graph.output, *copy.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            multiple = MULTIPLE.match(dim.dim_param)
            if dim.dim_param and dim.dim_param == symbol:
                dim.dim_value = size
            elif multiple and multiple[2] == symbol:
                dim.dim_value = int(multiple[1]) * size
    found = _infer_once(copy, origin=origin)
    while _is_stuck(copy, found) and fold_shapes(copy, known_shapes(found).get):
        fold_constants(copy)
        found |= _infer_once(copy, origin=origin)
    return found


def known_shapes(values: Mapping[str, Value]) -> dict[str, tuple[int, ...]]:
    """Return the shapes that are known in every dimension."""
    return {
        name: tuple(size for size in value.dims if size is not None)
        for name, value in values.items()
        if None not in value.dims
    }


def _is_stuck(proto: onnx.ModelProto, found: Mapping[str, Value]) -> bool:
    names = (name for node in proto.graph.node for name in makes(node))
    return any(name not in found or None in found[name].dims for name in names)


def _infer_once(proto: onnx.ModelProto, *, origin: str) -> dict[str, Value]:
    try:
        inferred = shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (shape_inference.InferenceError, ValueError, RuntimeError) as error:  # odd types raise the plain ones
        lines = " ".join(line.strip() for line in str(error).strip().splitlines() if line.strip())
        raise ModelError(f"{origin}: shapes contradict each other: {lines}") from None
    found: dict[str, Value] = {}
    _collect(inferred.graph, found)
    return found


def _drop_inner_types(proto: onnx.ModelProto) -> None:
    """Forget declared types of inner values that inference works out itself: files often hold stale ones."""
    opaque = {name for node in proto.graph.node if node.domain not in ("", "ai.onnx") for name in node.output}
    for index in reversed(range(len(proto.graph.value_info))):
        if proto.graph.value_info[index].name not in opaque:
            del proto.graph.value_info[index]


def _collect(graph: onnx.GraphProto, found: dict[str, Value]) -> None:
    for tensor in graph.initializer:
        found[tensor.name] = Value(tensor.data_type, tuple(tensor.dims))
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.elem_type and kind.HasField("shape"):
            sizes = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)
            found[value.name] = Value(kind.elem_type, sizes)
    for node in graph.node:
        for inner in subgraphs(node):
            _collect(inner, found)
