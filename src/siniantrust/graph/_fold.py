"""Make the graph smaller without changing what it computes: whatever depends on constants alone is evaluated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from siniantrust.graph._bypass import bypass, remove_unused, replace_nodes
from siniantrust.graph._check import constant_names
from siniantrust.graph._skeleton import skeleton
from siniantrust.graph._uses import makes, subgraphs, uses

# A folded constant may grow the model: by no more than this, unless it replaces larger inputs.
_LARGEST_RESULT_BYTES = 64 << 20
_RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout")
)
# Runtimes look for quantised weights behind this operator in order to compute in integers; folding would hide them.
_PATTERNS = frozenset(("DequantizeLinear",))
_FOLDED_DTYPES = frozenset(
    (
        *("float16", "float32", "float64", "bool"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
)


def simplify(proto: onnx.ModelProto) -> None:
    """Fold constants, remove Identity and inference-time Dropout, and remove what no output needs; in place.

    Names of inputs and outputs stay. What cannot be evaluated here is left as it is.
    """
    _constants_to_initialisers(proto.graph)
    fold_constants(proto)
    bypass(proto)
    remove_unused(proto.graph)


def fold_shapes(proto: onnx.ModelProto, known: Callable[[str], tuple[int, ...] | None]) -> bool:
    """Replace Shape and Size of values whose shape ``known`` gives by constants; in place. True if any was found."""
    graph = proto.graph
    outputs = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        asks = node.op_type in ("Shape", "Size") and not node.domain and node.output[0] not in outputs
        shape = known(node.input[0]) if asks else None
        if shape is None:
            kept.append(node)
            continue
        ends = {each.name: each.i for each in node.attribute}
        part = shape[ends.get("start", 0) : ends.get("end", len(shape))]
        value = np.array(part if node.op_type == "Shape" else math.prod(shape), dtype=np.int64)
        graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
    found = len(kept) < len(graph.node)
    if found:
        replace_nodes(graph, kept)
    return found


def _constants_to_initialisers(graph: onnx.GraphProto) -> None:
    outputs = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Constant" and not node.domain and node.output[0] not in outputs:
            tensor = _constant_value(node)
            if tensor is not None:
                tensor.name = node.output[0]
                graph.initializer.append(tensor)
                continue
        kept.append(node)
    if len(kept) < len(graph.node):
        replace_nodes(graph, kept)


def _constant_value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """Return the value of a Constant node as a tensor, or None for a sparse one."""
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    match attribute.name:
        case "value":
            copy = onnx.TensorProto()
            copy.CopyFrom(value)
            return copy
        case "value_float" | "value_floats":
            return numpy_helper.from_array(np.array(value, dtype=np.float32))
        case "value_int" | "value_ints":
            return numpy_helper.from_array(np.array(value, dtype=np.int64))
        case "value_string" | "value_strings":
            return numpy_helper.from_array(np.array(value, dtype=object))
        case _:
            return None


def fold_constants(proto: onnx.ModelProto) -> None:
    """Evaluate every node that depends on constants alone, once, in one ONNX Runtime session."""
    graph = proto.graph
    nodes = _foldable(proto)
    if not nodes:
        return
    made = {name for node in nodes for name in makes(node)}
    rest = [node for node in graph.node if made.isdisjoint(node.output)]
    needed = list(dict.fromkeys(name for node in rest for name in uses(node) if name in made))
    values = _evaluate(proto, nodes, needed) if needed else []
    if values is None:
        return
    for name, value in zip(needed, values, strict=True):
        graph.initializer.append(numpy_helper.from_array(value, name))
    replace_nodes(graph, rest)


def _foldable(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes to evaluate: constant inputs, deterministic, of a plain type and of bearable size."""
    graph = proto.graph
    outputs = {value.name for value in graph.output}
    known = constant_names(graph)
    candidates: list[onnx.NodeProto] = []
    for node in graph.node:
        plain = not node.domain and node.op_type not in _RANDOM | _PATTERNS and not any(subgraphs(node))
        if plain and node.op_type != "Constant" and known.issuperset(uses(node)) and outputs.isdisjoint(node.output):
            candidates.append(node)
            known.update(makes(node))
    if not candidates:
        return []
    sizes = _sizes(proto, candidates)
    known = constant_names(graph)
    nodes: list[onnx.NodeProto] = []
    for node in candidates:
        before = sum(sizes.get(name) or 0 for name in uses(node))
        after = [sizes.get(name) for name in makes(node)]
        total = sum(size for size in after if size is not None)
        bearable = None not in after and total <= max(_LARGEST_RESULT_BYTES, before)
        if bearable and known.issuperset(uses(node)):
            nodes.append(node)
            known.update(makes(node))
    return nodes


def _sizes(proto: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> dict[str, int | None]:
    """Return the bytes of every constant and of every value that ``nodes`` make; None where unknown or of odd type."""
    part = _constant_part(skeleton(proto), nodes, ())
    inferred = shape_inference.infer_shapes(part, data_prop=True)
    sizes: dict[str, int | None] = {}
    for tensor in proto.graph.initializer:
        sizes[tensor.name] = _bytes(tensor.data_type, list(tensor.dims))
    for value in inferred.graph.value_info:
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            sizes[value.name] = _bytes(kind.elem_type, [dim.dim_value for dim in kind.shape.dim])
    return sizes


def _bytes(elem_type: int, dims: Sequence[int]) -> int | None:
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    return math.prod(dims) * int(dtype.itemsize) if dtype.name in _FOLDED_DTYPES else None


def _constant_part(proto: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> onnx.ModelProto:
    """Return a model of ``nodes`` alone, with the constants that they read, and no type for its outputs."""
    part = onnx.ModelProto(ir_version=proto.ir_version)
    part.opset_import.extend(proto.opset_import)
    part.graph.name = "constants"
    part.graph.node.extend(nodes)
    read = {name for node in nodes for name in uses(node)}
    part.graph.initializer.extend(tensor for tensor in proto.graph.initializer if tensor.name in read)
    part.graph.input.extend(value for value in proto.graph.input if value.name in read)
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return part


def _evaluate(
    proto: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]
) -> list[np.ndarray] | None:
    """Run ``nodes``; None if the runtime cannot, in which case the device that gets them has the say."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    part = _constant_part(proto, nodes, outputs)
    try:
        session = ort.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return list(session.run(list(outputs), {}))
    except Exception:  # noqa: BLE001 - the runtime's exceptions share no base class; not folding is always correct
        return None
