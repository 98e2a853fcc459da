"""What follows a layer and goes into the pass that unmasks it: a residual sum, then what is below zero made zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # an enclave reads this module too, without an ONNX library
    from siniantrust.graph import Model


@dataclass(frozen=True, slots=True)
class Finish:
    """What unmasking a layer gives: the float value ``value``, with ``addend`` added and ``relu`` applied if so."""

    value: str
    addend: str | None = None
    relu: bool = False


def take_finishes(
    model: Model, groups: Sequence[Sequence[int]], rounds: Sequence[Sequence[int]]
) -> tuple[list[list[int]], list[tuple[Finish, ...]]]:
    """Take sums and activations that directly follow a layer out of the enclave's segments.

    A sum is taken where its other operand has the same shape and is there when the layer is unmasked: it was made
    before the exchange, or by a layer that stands before this one in it.

    Args:
        model: the model.
        groups: its nodes that stay inside, per segment; segment ``i`` comes before exchange ``i``.
        rounds: its offered nodes, per exchange.

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
            finish, nodes = _follow(model, model.nodes[index].outputs[0], there)
            taken |= nodes
            there.add(finish.value)
            finishes.append(finish)
        found.append(tuple(finishes))
    return [[index for index in group if index not in taken] for group in groups], found


def _follow(model: Model, value: str, there: set[str]) -> tuple[Finish, set[int]]:
    addend: str | None = None
    relu = False
    nodes: set[int] = set()
    index = _only_reader(model, value)
    if index is not None and model.nodes[index].op_type == "Add":
        other = next((name for name in model.nodes[index].inputs if name != value), None)
        if other is not None and other in there and replace(model.tensors[other], name=value) == model.tensors[value]:
            addend, value = other, model.nodes[index].outputs[0]
            nodes.add(index)
            index = _only_reader(model, value)
    if index is not None and model.nodes[index].op_type == "Relu":
        relu, value = True, model.nodes[index].outputs[0]
        nodes.add(index)
    return Finish(value, addend, relu), nodes


def _only_reader(model: Model, value: str) -> int | None:
    """Return the node that alone reads ``value``, if nothing else needs it."""
    readers = model.consumers.get(value, ())
    if len(readers) != 1 or any(output.name == value for output in model.outputs):
        return None
    return readers[0]
