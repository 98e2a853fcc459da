"""A model as stages that alternate: what the enclave computes in floating point, and layers that devices compute.

The layers are offered as early as their inputs are there: all that are ready at the same time make one exchange, and
those that read the same value share its pad. Everything else stays in the enclave, in as few pieces as possible; sums
and activations that directly follow a layer go into the pass that unmasks it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from siniantrust.errors import PlanError
from siniantrust.graph import Model, Part, part_from_proto
from siniantrust.masking.exact._affine import fold_affine
from siniantrust.masking.exact._device_part import Arithmetic, device_part
from siniantrust.masking.exact._finish import take_finishes
from siniantrust.masking.exact._offer import make_layer, why_not
from siniantrust.masking.exact._stages import Exchange, Program
from siniantrust.masking.exact._thin import thin


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
    layers = {
        by_name[name].index: make_layer(
            model, by_name[name], input_scale=input_scales[model.proto.graph.node[by_name[name].index].input[0]]
        )
        for name in offered
    }
    folded = {}
    for index, plain in layers.items():
        layers[index], value, nodes = fold_affine(model, plain)
        layers[index].check()
        folded[index] = value, nodes
    groups, rounds = _schedule(model, set(layers))
    groups, finishes = take_finishes(model, groups, rounds, folded)
    segments = tuple(_segment(model, groups, index) for index in range(len(groups)))
    exchanges: list[Exchange] = []
    known = 0
    for number, indices in enumerate(rounds):
        ready, steps = thin([layers[index] for index in indices])
        names = dict.fromkeys(layer.entry for layer in ready)
        entries = {name: known + place for place, name in enumerate(names)}
        known += len(entries)
        shapes = {name: _thinned(model.tensors[name].shape, steps.get(name)) for name in entries}
        shapes |= {layer.exit: model.tensors[layer.exit].shape for layer in ready}
        limbs = max(layer.limbs for layer in ready)
        # Inside runs a processor, which is fastest so.
        inside = part = device_part(f"exchange{number}", ready, shapes, limbs=limbs, arithmetic="int8")
        if arithmetic != "int8":
            part = device_part(f"exchange{number}", ready, shapes, limbs=limbs, arithmetic=arithmetic)
        exchanges.append(Exchange(number, entries, ready, finishes[number], steps, limbs, shapes, part, inside))
    return Program(model.inputs, model.outputs, segments, tuple(exchanges))


def _thinned(shape: tuple[int, ...], steps: tuple[int, int] | None) -> tuple[int, ...]:
    if steps is None:
        return shape
    return (*shape[:2], *(-(-size // step) for size, step in zip(shape[2:], steps, strict=True)))


def _schedule(model: Model, offered: set[int]) -> tuple[list[list[int]], list[list[int]]]:
    """Return the enclave's nodes per segment, and the offered nodes per exchange between them."""
    there = {tensor.name for tensor in model.inputs}
    waiting = list(range(len(model.nodes)))
    groups: list[list[int]] = []
    rounds: list[list[int]] = []
    while True:
        group: list[int] = []
        left: list[int] = []
        for index in waiting:
            node = model.nodes[index]
            if index in offered or not all(name in there or name not in model.producers for name in node.inputs):
                left.append(index)
            else:
                group.append(index)
                there.update(node.outputs)
        groups.append(group)
        ready = [i for i in left if all(n in there or n not in model.producers for n in model.nodes[i].inputs)]
        if not ready:
            return groups, rounds
        rounds.append(ready)
        there.update(name for index in ready for name in model.nodes[index].outputs)
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
