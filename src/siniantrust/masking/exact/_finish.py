"""What follows a layer and goes into the pass that unmasks it: a residual sum, then what is below zero made zero.

A pooling after that waits until the values are quantised, where only devices read it: the largest step is the step of
the largest value.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from siniantrust.masking.exact._pool import Pool

if TYPE_CHECKING:  # an enclave reads this module too, without an ONNX library
    from siniantrust.graph import Model

_AXES = 2


@dataclass(frozen=True, slots=True)
class Finish:
    """What unmasking a layer gives: the value ``value``, with ``addend`` added, ``relu`` and ``pool`` applied if so."""

    value: str
    addend: str | None = None
    relu: bool = False
    pool: Pool | None = None


def take_finishes(
    model: Model,
    groups: Sequence[Sequence[int]],
    rounds: Sequence[Sequence[int]],
    folded: Mapping[int, tuple[str, frozenset[int]]],
    offered: Collection[int],
) -> tuple[list[list[int]], list[tuple[Finish, ...]]]:
    """Take sums and activations that directly follow a layer out of the enclave's segments.

    A sum is taken where its other operand has the same shape and is there when the layer is unmasked: it was made
    before the exchange, or by a layer that stands before this one in it.

    Args:
        model: the model.
        groups: its nodes that stay inside, per segment; segment ``i`` comes before exchange ``i``.
        rounds: its layers, per exchange.
        folded: for each of them the value that it gives with what was folded in, and these nodes.
        offered: the nodes that devices compute: those layers, and others that are part of them.

    Returns:
        The groups without what was taken, and for every exchange what finishes each of its layers.
    """
    there = {tensor.name for tensor in model.inputs}
    taken: set[int] = set()
    found: list[tuple[Finish, ...]] = []
    for group, layers in zip(groups, rounds, strict=False):
        there.update(name for index in group if index not in taken for name in model.nodes[index].outputs)
        finishes = []
        for index in layers:
            value, inside = folded[index]
            finish, nodes = _follow(model, value, there, offered)
            taken |= nodes | inside
            there.add(finish.value)
            finishes.append(finish)
        found.append(tuple(finishes))
    return [[index for index in group if index not in taken] for group in groups], found


def _follow(model: Model, value: str, there: set[str], offered: Collection[int]) -> tuple[Finish, set[int]]:
    addend: str | None = None
    relu, pool = False, None
    nodes: set[int] = set()
    index = only_reader(model, value)
    if index is not None and model.nodes[index].op_type == "Add":
        other = next((name for name in model.nodes[index].inputs if name != value), None)
        if other is not None and other in there and replace(model.tensors[other], name=value) == model.tensors[value]:
            addend, value = other, model.nodes[index].outputs[0]
            nodes.add(index)
            index = only_reader(model, value)
    if index is not None and model.nodes[index].op_type == "Relu":
        relu, value = True, model.nodes[index].outputs[0]
        nodes.add(index)
        index = only_reader(model, value)
    if index is not None:
        pooled = model.nodes[index].outputs[0]
        pool = _pool(model, index)
        if pool is not None and _read_by(model, pooled, offered):
            value = pooled
            nodes.add(index)
        else:
            pool = None
    return Finish(value, addend, relu, pool), nodes


def _pool(model: Model, index: int) -> Pool | None:
    """Return what a node pools, where it takes the largest of plain windows over height and width."""
    from onnx import helper  # an enclave reads this module without it

    proto = model.proto.graph.node[index]
    attributes = {each.name: helper.get_attribute_value(each) for each in proto.attribute}
    kernel = tuple(attributes.get("kernel_shape", ()))
    strides, pads = attributes.get("strides", (1,) * _AXES), attributes.get("pads", (0,) * 2 * _AXES)
    other = (
        proto.op_type != "MaxPool" or bool(proto.domain),
        len(proto.output) > 1 or len(kernel) != _AXES,
        attributes.get("auto_pad", b"NOTSET") != b"NOTSET" or attributes.get("ceil_mode", 0),
        set(attributes.get("dilations", ())) - {1},
    )
    if any(other):
        return None
    return Pool((kernel[0], kernel[1]), (strides[0], strides[1]), (pads[0], pads[1], pads[2], pads[3]))


def _read_by(model: Model, value: str, offered: Collection[int]) -> bool:
    """Return whether devices alone read ``value``, as what they compute on."""
    readers = model.consumers.get(value, ())
    return all(index in offered for index in readers) and all(output.name != value for output in model.outputs)


def only_reader(model: Model, value: str) -> int | None:
    """Return the node that alone reads ``value``, if nothing else needs it."""
    readers = model.consumers.get(value, ())
    if len(readers) != 1 or any(output.name == value for output in model.outputs):
        return None
    return readers[0]
