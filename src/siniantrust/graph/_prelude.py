"""What of a part depends on noise and constants alone: a model of its own, which runs before a request comes."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import helper

from siniantrust.graph._noise import NOISE_PREFIX, copied, put_nodes, still_read
from siniantrust.graph._uses import subgraphs, uses

PREPARED_PREFIX = NOISE_PREFIX + "prepared:"
"""How the reserved inputs' names begin that hold what the prelude made; the value's name follows."""

_ONNX_DOMAINS = ("", "ai.onnx")


def take_prelude(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    """Move what depends on noise and constants alone out of ``proto``, in place, and return it as a model of its own.

    ``proto`` is one whose noise is fed (``feed_noise``). What the rest of it reads of the moved nodes becomes reserved
    inputs (``PREPARED_PREFIX`` and the value's name), with an Identity in the place of the node that made it; the
    prelude makes these values, under their own names, of the reserved inputs that hold drawn numbers. A number that
    both read is an input of both, and has to be drawn once for them. Constants that only the prelude reads move.

    A node stays where it holds a graph, is of another domain than ONNX's, has several outputs, or makes a value whose
    type and shape are not declared.

    Returns:
        The prelude; None where nothing can be moved.
    """
    graph = proto.graph
    found = _Early(graph)
    staying = [node for node in graph.node if node.output[0] not in found.moved]
    read = _read(graph, staying)
    crossing = [name for name in found.moved if name in read]
    if not crossing:
        return None
    prelude = _prelude(proto, found, crossing)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        name = node.output[0]
        if name not in found.moved:
            nodes.append(copied(node))
        elif name in read:
            nodes.append(helper.make_node("Identity", [PREPARED_PREFIX + name], [name], name=node.name))
            graph.input.add(name=PREPARED_PREFIX + name).type.CopyFrom(found.types[name])
    _keep(graph, nodes, gone={tensor.name for tensor in prelude.graph.initializer} | found.nodes.keys())
    return prelude


class _Early:
    """The nodes that need no request: of constants alone, and of noise and constants.

    Attributes:
        nodes: all of them by the value that they make, in order.
        moved: the values that are made of noise, other than a drawn number itself.
        types: the declared types of values.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.types = {value.name: value.type for value in (*graph.value_info, *graph.output)}
        self.nodes: dict[str, onnx.NodeProto] = {}
        self.moved: dict[str, None] = {}
        fixed = {tensor.name for tensor in graph.initializer}
        reserved = {value.name for value in graph.input if value.name.startswith(NOISE_PREFIX)}
        drawn = set(reserved)
        for node in graph.node:
            reads, simple = uses(node), node.domain in _ONNX_DOMAINS and len(node.output) == 1
            if not simple or next(subgraphs(node), None) is not None or not fixed.union(drawn).issuperset(reads):
                continue
            (made,) = node.output
            is_drawn = not drawn.isdisjoint(reads)
            if is_drawn and not _is_declared(self.types.get(made)):
                continue
            self.nodes[made] = node
            (drawn if is_drawn else fixed).add(made)
            if is_drawn and not (node.op_type == "Identity" and reserved.issuperset(reads)):
                self.moved[made] = None


def _prelude(proto: onnx.ModelProto, found: _Early, crossing: Iterable[str]) -> onnx.ModelProto:
    """Return a model that makes the values in ``crossing``."""
    wanted = set(crossing)
    nodes = []
    for made, node in reversed(found.nodes.items()):
        if made in wanted:
            nodes.append(copied(node))
            wanted.update(uses(node))
    prelude = onnx.ModelProto(ir_version=proto.ir_version)
    prelude.opset_import.extend(proto.opset_import)
    prelude.graph.name = f"{proto.graph.name}.prelude"
    prelude.graph.node.extend(reversed(nodes))
    prelude.graph.input.extend(value for value in proto.graph.input if value.name in wanted)
    prelude.graph.initializer.extend(tensor for tensor in proto.graph.initializer if tensor.name in wanted)
    for name in crossing:
        prelude.graph.output.add(name=name).type.CopyFrom(found.types[name])
    return prelude


def _keep(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], *, gone: Iterable[str]) -> None:
    """Let a graph have ``nodes``, without what is in ``gone`` and without noise where nothing reads it any more."""
    may_go = set(gone) | {value.name for value in graph.input if value.name.startswith(NOISE_PREFIX)}
    kept = still_read(nodes, may_go, _read(graph, ()))
    put_nodes(graph, kept)
    read = _read(graph, kept)
    for entries in (graph.initializer, graph.input):
        for entry in [each for each in entries if each.name in may_go and each.name not in read]:
            entries.remove(entry)


def _read(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Return what ``nodes`` read, and what leaves the graph."""
    return {name for node in nodes for name in uses(node)} | {value.name for value in graph.output}


def _is_declared(kind: onnx.TypeProto | None) -> bool:
    if kind is None or not kind.tensor_type.HasField("shape"):
        return False
    return all(dim.dim_param or dim.HasField("dim_value") for dim in kind.tensor_type.shape.dim)
