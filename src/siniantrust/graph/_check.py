"""Is this a valid model that we understand: operators, tensors, names, order, and ONNX's own checker."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import checker, defs, inliner

from siniantrust.errors import ModelError
from siniantrust.graph._read import expected_bytes, tensors_of
from siniantrust.graph._skeleton import skeleton
from siniantrust.graph._uses import label, makes, subgraphs, topological

_STANDARD_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training")
# From IR version 4 on, initialisers need not be listed among the inputs (ONNX IR specification, "Graphs").
_IR_WITHOUT_DEFAULTS = 4
_IR_WITH_OPSETS = 3


def normalise(proto: onnx.ModelProto, *, origin: str) -> None:
    """Check ``proto`` and bring it, in place, into the one form that the rest of this package works on.

    Initialisers are no inputs (a default that a caller could override becomes a constant), local functions are
    inlined, nodes are in topological order and every node has a unique name.

    Raises:
        ModelError: naming the node, operator or tensor that is wrong.
    """
    if proto.ir_version < _IR_WITH_OPSETS and not proto.opset_import:
        proto.opset_import.add(domain="", version=1)
    proto.ir_version = max(proto.ir_version, _IR_WITHOUT_DEFAULTS)
    check_contents(proto, origin=origin)
    graph = proto.graph
    constants = constant_names(graph)
    for index in reversed(range(len(graph.input))):
        if graph.input[index].name in constants:
            del graph.input[index]
    if proto.functions:
        _inline(proto)
    given = [value.name for value in graph.input]
    nodes = topological(graph.node, [*given, *constants], origin=origin)
    _name_nodes(nodes)
    del graph.node[:]
    graph.node.extend(nodes)
    made = {name for node in nodes for name in makes(node)}.union(given, constants)
    lost = next((value.name for value in graph.output if value.name not in made), None)
    if lost is not None:
        raise ModelError(f"{origin}: output '{lost}' is made by no node")
    run_checker(proto, origin=origin)


def check_contents(proto: onnx.ModelProto, *, origin: str) -> None:
    """Check every stored tensor, and that every operator exists in the opset that its graph or function imports.

    Raises:
        ModelError: naming the tensor, or the node and its operator.
    """
    for tensor in tensors_of(proto):
        _check_tensor(tensor, origin=origin)
    known = {(f.domain, f.name) for f in proto.functions}
    opsets = {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import}
    _check_operators(proto.graph.node, opsets, known, origin=origin)
    for function in proto.functions:
        own = {entry.domain or "ai.onnx": entry.version for entry in function.opset_import}
        _check_operators(function.node, opsets | own, known, origin=origin)


def run_checker(proto: onnx.ModelProto, *, origin: str) -> None:
    """Run ONNX's checker on the model without its weights, which were checked before.

    Raises:
        ModelError: with the checker's first line.
    """
    try:
        checker.check_model(skeleton(proto))
    except checker.ValidationError as error:
        raise ModelError(f"{origin}: invalid graph: {_first_line(error)}") from None


def constant_names(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the stored constants of a graph, dense and sparse."""
    return {tensor.name for tensor in graph.initializer} | {sparse.values.name for sparse in graph.sparse_initializer}


def _check_tensor(tensor: onnx.TensorProto, *, origin: str) -> None:
    """Check that a stored tensor is embedded, of a known type, and holds as many bytes as its shape asks for."""
    what = f"{origin}: tensor '{tensor.name}'"
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ModelError(f"{what} lies in an external file; give the model as a path, so that the file can be found")
    if tensor.data_type not in onnx.TensorProto.DataType.values() or not tensor.data_type:
        raise ModelError(f"{what} has the unknown element type {tensor.data_type}")
    if not tensor.HasField("raw_data"):
        try:
            checker.check_tensor(tensor)
        except checker.ValidationError as error:
            raise ModelError(f"{what}: {_first_line(error)}") from None
    elif len(tensor.raw_data) != expected_bytes(tensor):
        found, needed = len(tensor.raw_data), expected_bytes(tensor)
        raise ModelError(f"{what}: {needed} bytes expected for its type and shape, {found} found")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]


def _check_operators(
    nodes: Iterable[onnx.NodeProto], opsets: dict[str, int], functions: set[tuple[str, str]], *, origin: str
) -> None:
    """Check that every operator of a standard domain exists in the opset that the model imports."""
    for node in nodes:
        domain = node.domain or "ai.onnx"
        for graph in subgraphs(node):
            _check_operators(graph.node, opsets, functions, origin=origin)
        if (node.domain, node.op_type) in functions:
            continue
        version = opsets.get(domain)
        if version is None:
            raise ModelError(
                f"{origin}: {label(node)} needs the opset domain '{domain}', which the model does not import"
            )
        if node.domain not in _STANDARD_DOMAINS:
            continue
        newest = defs.onnx_opset_version()
        if domain == "ai.onnx" and version > newest:
            raise ModelError(f"{origin}: opset {version} is newer than the newest known one, {newest}; upgrade onnx")
        try:
            defs.get_schema(node.op_type, version, "" if domain == "ai.onnx" else domain)
        except defs.SchemaError:
            raise ModelError(
                f"{origin}: {label(node)}: operator '{node.op_type}' is unknown in opset {version} of '{domain}'"
            ) from None


def _inline(proto: onnx.ModelProto) -> None:
    """Replace calls of local functions by their bodies; a function of another opset version stays a function."""
    inlined = inliner.inline_local_functions(skeleton(proto))
    for field in ("functions", "opset_import"):
        proto.ClearField(field)
        getattr(proto, field).extend(getattr(inlined, field))
    proto.graph.ClearField("node")
    proto.graph.node.extend(inlined.graph.node)


def _name_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    """Give every node a unique name; made-up names come from the output, so that they do not depend on the order."""
    taken: set[str] = set()
    unnamed: list[onnx.NodeProto] = []
    for node in nodes:
        if node.name and node.name not in taken:
            taken.add(node.name)
        else:
            unnamed.append(node)
    for node in unnamed:
        base = f"{node.name or node.op_type}_{next(iter(makes(node)), 'none')}"
        name, count = base, 1
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        node.name = name
        taken.add(name)
