"""Parts of a model: each node in exactly one, each a model of its own, in order composing to the whole."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from siniantrust.errors import PlanError
from siniantrust.graph._check import constant_names
from siniantrust.graph._cuts import prefix_nodes
from siniantrust.graph._types import Cut, Model, Part, Tensor


def split(model: Model, cuts: Sequence[Cut]) -> tuple[Part, ...]:
    """Cut ``model`` into ``len(cuts) + 1`` parts named part1, part2, ...

    Run in order, with every part's outputs added to a pool that begins with the model's inputs and from which each part
    takes its inputs, the parts compute the model; its outputs are in the pool at the end. A part may read a value of
    any earlier part, but only one that is among the tensors of *every* cut between the two: nothing crosses a cut
    unseen. Such a value goes from its maker to its reader and not through the parts between. Inputs that nothing reads
    belong to part1. Parts keep the opset, functions, types and the free batch dimension, and only the constants that
    they read (one that two parts read is in both).

    Args:
        model: the model.
        cuts: from ``enumerate_cuts`` of the same model; each one's prefix must hold the one before.

    Raises:
        PlanError: if a cut is not of this model, lets anything but its tensors cross, or the cuts are not nested.
    """
    prefixes = [frozenset(prefix_nodes(model, cut)) for cut in cuts]
    stage = [len(cuts)] * len(model.nodes)
    for index in reversed(range(len(cuts))):
        if index and not prefixes[index - 1] < prefixes[index]:
            raise PlanError(
                f"cuts '{cuts[index - 1].id}' and '{cuts[index].id}' are not nested: "
                "give them from input to output, each with all nodes of the one before and more"
            )
        _require_legal(model, cuts[index], prefixes[index])
        for node in prefixes[index]:
            stage[node] = index
    groups: list[list[int]] = [[] for _ in range(len(cuts) + 1)]
    for node, number in enumerate(stage):
        groups[number].append(node)
    types = {value.name: value for value in model.proto.graph.value_info}
    types |= {value.name: value for value in (*model.proto.graph.input, *model.proto.graph.output)}
    return tuple(_part(model, number, groups, cuts, types) for number in range(len(groups)))


def _require_legal(model: Model, cut: Cut, prefix: frozenset[int]) -> None:
    """Raise PlanError unless exactly the cut's tensors cross the edge of ``prefix``."""
    if len(prefix) == len(model.nodes):
        raise PlanError(f"cut '{cut.id}' leaves no node behind it")
    ends = {output.name for output in model.outputs}
    crossing = {
        name
        for index in prefix
        for name in model.nodes[index].outputs
        if name in ends or any(reader not in prefix for reader in model.consumers.get(name, ()))
    }
    crossing |= {
        value.name
        for value in model.inputs
        if value.name in ends or any(reader not in prefix for reader in model.consumers.get(value.name, ()))
    }
    if crossing != set(cut.tensors):
        odd = min(crossing.symmetric_difference(cut.tensors))
        what = f"'{odd}' would cross too" if odd in crossing else f"nothing behind it reads '{odd}'"
        raise PlanError(f"cut '{cut.id}' is not a cut of model '{model.name}': {what}")


def _part(
    model: Model,
    number: int,
    groups: Sequence[Sequence[int]],
    cuts: Sequence[Cut],
    types: dict[str, onnx.ValueInfoProto],
) -> Part:
    nodes = groups[number]
    last = number == len(groups) - 1
    made = {name for index in nodes for name in model.nodes[index].outputs}
    read = dict.fromkeys(name for index in nodes for name in model.nodes[index].inputs if name not in made)
    known = {value.name for value in model.inputs}
    inputs = [
        value.name
        for value in model.inputs
        if value.name in read or (number == 0 and value.name not in model.consumers)
    ]
    inputs += [name for name in read if name in model.producers]
    ends = [output.name for output in model.outputs]
    outputs = [] if last else [name for name in cuts[number].tensors if name in made]
    outputs += [name for name in ends if name in made and name not in outputs]
    constants = constant_names(model.proto.graph)
    if last:  # an output of the model that is an input or a constant of it is made by no node
        outputs = [name for name in ends if name in made or name in constants]
    proto = _proto(model.proto, nodes, set(read) | set(outputs), name=f"{model.name}.part{number + 1}")
    proto.graph.input.extend(types[name] for name in inputs)
    proto.graph.output.extend(types[name] for name in outputs)
    proto.graph.value_info.extend(types[n] for n in types if n in made and n not in outputs and n not in known)
    return Part(
        name=f"part{number + 1}",
        proto=proto,
        inputs=tuple(_tensor(model, name) for name in inputs),
        outputs=tuple(_tensor(model, name) for name in outputs),
        node_names=tuple(model.nodes[index].name for index in nodes),
        batch_symbol=model.batch_symbol,
    )


def _proto(whole: onnx.ModelProto, nodes: Sequence[int], needed: set[str], *, name: str) -> onnx.ModelProto:
    """Copy the header, the nodes and the constants that are needed; protobuf owns its data, so each is copied once."""
    proto = onnx.ModelProto()
    for field in ("opset_import", "functions", "configuration"):
        getattr(proto, field).extend(getattr(whole, field))
    proto.ir_version = whole.ir_version
    proto.producer_name = "siniantrust"
    proto.graph.name = name
    source = whole.graph.node
    proto.graph.node.extend(source[index] for index in nodes)
    proto.graph.initializer.extend(tensor for tensor in whole.graph.initializer if tensor.name in needed)
    proto.graph.sparse_initializer.extend(
        sparse for sparse in whole.graph.sparse_initializer if sparse.values.name in needed
    )
    return proto


def _tensor(model: Model, name: str) -> Tensor:
    known = model.tensors.get(name)
    return known if known is not None else next(output for output in model.outputs if output.name == name)
