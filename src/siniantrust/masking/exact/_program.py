"""A model as stages that alternate: what the enclave computes in floating point, and layers that devices compute.

The layers are offered as early as their inputs are there: all that are ready at the same time make one exchange, and
those that read the same value share its pad. A sum of two layers' results is one layer, where that is possible.
Everything else stays in the enclave, in as few pieces as possible; other sums, and activations, that directly follow a
layer go into the pass that unmasks it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from siniantrust.errors import PlanError
from siniantrust.graph import Model, Part, part_from_proto
from siniantrust.masking.exact._affine import fold_affine
from siniantrust.masking.exact._device_part import Arithmetic, device_part
from siniantrust.masking.exact._finish import take_finishes
from siniantrust.masking.exact._joined import Joined, joint_shape
from siniantrust.masking.exact._layer import Layer
from siniantrust.masking.exact._offer import make_layer, why_not
from siniantrust.masking.exact._stages import Exchange, Program
from siniantrust.masking.exact._sums import join, joint_sums
from siniantrust.masking.exact._thin import thin, thinned_shape


def offerable(model: Model) -> dict[str, str | None]:
    """Return for every node why it cannot be offered to a device under a pad, None where it can."""
    return {node.name: why_not(model, node) for node in model.nodes}


def build_program(
    model: Model, offered: Sequence[str], input_scales: Mapping[str, float], *, arithmetic: Arithmetic = "int8"
) -> Program:
    """Arrange ``model`` so that the nodes named in ``offered`` are computed by devices.

    Args:
        model: the model; its batch must be free, or 1.
        offered: names of nodes that ``offerable`` has nothing against.
        input_scales: what one step of each such node's input is worth, by the input's name.
        arithmetic: in which devices compute.

    Raises:
        PlanError: if a node cannot be offered, naming it and why, or a bound cannot be proven.
    """
    by_name = {node.name: node for node in model.nodes}
    for name in offered:
        reason = why_not(model, by_name[name]) if name in by_name else "there is no such node"
        if reason is not None:
            raise PlanError(f"exact masks: node '{name}' cannot be offered to a device: {reason}")
    nodes = {by_name[name].index for name in offered}
    units = _units(model, nodes, input_scales)
    groups, rounds = _schedule(model, units)
    groups, finishes = take_finishes(model, groups, rounds, {index: each.gives for index, each in units.items()}, nodes)
    segments = tuple(_segment(model, groups, index) for index in range(len(groups)))
    exchanges: list[Exchange] = []
    known = 0
    for number, indices in enumerate(rounds):
        ready, steps = thin([units[index].layer for index in indices])
        names = dict.fromkeys(layer.entry for layer in ready)
        entries = {name: known + place for place, name in enumerate(names)}
        known += len(entries)
        joins = {units[index].layer.entry: units[index].parts for index in indices if units[index].parts}
        shapes = {
            name: joint_shape(joins[name])
            if name in joins
            else thinned_shape(model.tensors[name].shape, steps.get(name, (1, 1)))
            for name in entries
        }
        shapes |= {layer.exit: model.tensors[layer.exit].shape for layer in ready}
        limbs = max(layer.limbs for layer in ready)
        # Inside runs a processor, which is fastest so.
        inside = part = device_part(f"exchange{number}", ready, shapes, limbs=limbs, arithmetic="int8")
        if arithmetic != "int8":
            part = device_part(f"exchange{number}", ready, shapes, limbs=limbs, arithmetic=arithmetic)
        exchanges.append(Exchange(number, entries, ready, finishes[number], steps, joins, limbs, shapes, part, inside))
    return Program(model.inputs, model.outputs, segments, tuple(exchanges))


@dataclass(frozen=True)
class _Unit:
    """Offered nodes that make one layer, what its entry is put together of, and what it gives with what is folded in.

    ``inside`` are the nodes that were folded in.
    """

    nodes: tuple[int, ...]
    layer: Layer
    parts: tuple[Joined, ...]
    value: str
    inside: frozenset[int]

    @property
    def gives(self) -> tuple[str, frozenset[int]]:
        return self.value, self.inside


def _units(model: Model, offered: set[int], input_scales: Mapping[str, float]) -> dict[int, _Unit]:
    """Quantise the offered nodes; return their layers by the last node of each, in the model's order."""
    sums = {joint.layers[-1]: joint for joint in joint_sums(model) if offered.issuperset(joint.layers)}
    earlier = {joint.layers[0] for joint in sums.values()}
    units = {}
    for index in sorted(offered - earlier):
        if index in sums:
            nodes, more = sums[index].layers, sums[index].inside
            plain, parts = join(model, sums[index], input_scales)
        else:
            nodes, more, parts = (index,), frozenset[int](), ()
            scale = input_scales[model.proto.graph.node[index].input[0]]
            plain = make_layer(model, model.nodes[index], input_scale=scale)
        layer, value, inside = fold_affine(model, plain)
        layer.check()
        units[index] = _Unit(nodes, layer, parts, value, inside | more)
    return units


def _schedule(model: Model, units: Mapping[int, _Unit]) -> tuple[list[list[int]], list[list[int]]]:
    """Return the enclave's nodes per segment, and the offered units per exchange between them."""
    there = {tensor.name for tensor in model.inputs}
    offered = {index for unit in units.values() for index in unit.nodes}
    waiting = [index for index in range(len(model.nodes)) if index in units or index not in offered]
    groups: list[list[int]] = []
    rounds: list[list[int]] = []

    def is_ready(index: int) -> bool:
        nodes = units[index].nodes if index in units else (index,)
        read = (name for each in nodes for name in model.nodes[each].inputs)
        return all(name in there or name not in model.producers for name in read)

    while True:
        group: list[int] = []
        left: list[int] = []
        for index in waiting:
            if index in units or not is_ready(index):
                left.append(index)
            else:
                group.append(index)
                there.update(model.nodes[index].outputs)
        groups.append(group)
        ready = [index for index in left if is_ready(index)]
        if not ready:
            return groups, rounds
        rounds.append(ready)
        there.update(name for index in ready for each in units[index].nodes for name in model.nodes[each].outputs)
        waiting = [index for index in left if index not in set(ready)]


def _segment(model: Model, groups: Sequence[Sequence[int]], number: int) -> Part | None:
    """Return the enclave's nodes of one segment as a model; its outputs are what anything later reads."""
    nodes = groups[number]
    if not nodes:
        return None
    inside = set(nodes)
    made = {name for index in nodes for name in model.nodes[index].outputs}
    ends = {output.name for output in model.outputs}
    read = dict.fromkeys(name for index in nodes for name in model.nodes[index].inputs if name not in made)
    sources = {tensor.name for tensor in model.inputs}
    inputs = [name for name in read if name in model.producers or name in sources]
    outputs = [
        name
        for index in nodes
        for name in model.nodes[index].outputs
        if name in ends or any(reader not in inside for reader in model.consumers.get(name, ()))
    ]
    types = {value.name: value for value in model.proto.graph.value_info}
    types |= {value.name: value for value in (*model.proto.graph.input, *model.proto.graph.output)}
    proto = onnx.ModelProto()
    proto.opset_import.extend(model.proto.opset_import)
    proto.functions.extend(model.proto.functions)
    proto.ir_version = model.proto.ir_version
    proto.graph.name = f"segment{number}"
    proto.graph.node.extend(model.proto.graph.node[index] for index in nodes)
    proto.graph.initializer.extend(tensor for tensor in model.proto.graph.initializer if tensor.name in read)
    proto.graph.input.extend(types[name] for name in inputs)
    proto.graph.output.extend(types[name] for name in outputs)
    return part_from_proto(proto, name=f"segment{number}")
