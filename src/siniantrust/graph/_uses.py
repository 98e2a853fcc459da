"""Which values a node reads, and an order in which every value is made before it is read."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet

import onnx

from siniantrust.errors import ModelError


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that a control-flow node carries (branches of If, bodies of Loop and Scan)."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def captured(node: onnx.NodeProto) -> tuple[str, ...]:
    """Return the outer values that the subgraphs of ``node`` read, in order of first use."""
    names: dict[str, None] = {}
    for graph in subgraphs(node):
        local = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        local |= {tensor.values.name for tensor in graph.sparse_initializer}
        local |= {name for inner in graph.node for name in inner.output}
        reads = [name for inner in graph.node for name in uses(inner)] + [value.name for value in graph.output]
        names.update(dict.fromkeys(name for name in reads if name not in local))
    return tuple(names)


def uses(node: onnx.NodeProto) -> tuple[str, ...]:
    """Return the values that ``node`` reads, without omitted ones, with those that its subgraphs capture."""
    direct = tuple(name for name in node.input if name)
    outer = captured(node)
    return direct + tuple(name for name in outer if name not in direct)


def makes(node: onnx.NodeProto) -> tuple[str, ...]:
    """Return the values that ``node`` makes, without omitted ones."""
    return tuple(name for name in node.output if name)


def topological(nodes: Sequence[onnx.NodeProto], given: Iterable[str], *, origin: str) -> list[onnx.NodeProto]:
    """Sort ``nodes`` so that values are made before they are read, as near to the given order as that allows.

    Kahn's algorithm (Kahn 1962) with a heap over the original positions. ``given`` are inputs and constants.

    Raises:
        ModelError: if a value is made twice, is read but made by nothing, or the graph has a cycle.
    """
    readers, missing = _links(nodes, set(given), origin=origin)
    ready = [index for index, count in enumerate(missing) if count == 0]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers[index]:
            missing[reader] -= 1
            if missing[reader] == 0:
                heapq.heappush(ready, reader)
    if len(order) < len(nodes):
        stuck = next(index for index, count in enumerate(missing) if count)
        raise ModelError(f"{origin}: the graph has a cycle through {label(nodes[stuck])}")
    return [nodes[index] for index in order]


def _links(
    nodes: Sequence[onnx.NodeProto], given: AbstractSet[str], *, origin: str
) -> tuple[list[list[int]], list[int]]:
    """Return who reads from each node, and how many values made by nodes each node waits for."""
    maker: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in makes(node):
            if name in maker or name in given:
                raise ModelError(f"{origin}: value '{name}' is made twice (second time by {label(node)})")
            maker[name] = index
    readers: list[list[int]] = [[] for _ in nodes]
    missing = [0] * len(nodes)
    for index, node in enumerate(nodes):
        for name in dict.fromkeys(uses(node)):
            if name in maker:
                readers[maker[name]].append(index)
                missing[index] += 1
            elif name not in given:
                raise ModelError(f"{origin}: {label(node)} reads '{name}', which is no input, constant or output")
    return readers, missing


def label(node: onnx.NodeProto) -> str:
    """Return how errors call a node: its operator and its name or, failing that, its first output."""
    return f"{node.op_type} node '{node.name or next(iter(makes(node)), '')}'"
