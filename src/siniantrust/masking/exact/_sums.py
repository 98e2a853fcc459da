"""Sums of two layers' results that a device can make: one result comes back instead of two.

In integers ``A h + B x`` is one layer over the channels of h and those of x. Each value keeps its own steps; what they
are worth is taken into the weights before these are quantised, all of a row together, so that the scales of the two
results agree. That x may be sent a second time, under a pad of its own, is what it costs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from siniantrust.graph import Model, Node
from siniantrust.masking.exact._affine import Affine, affine_after
from siniantrust.masking.exact._finish import only_reader
from siniantrust.masking.exact._joined import Joined
from siniantrust.masking.exact._layer import MOST_TERMS, Layer, Window
from siniantrust.masking.exact._offer import linear_of, quantised, why_not, window_of
from siniantrust.masking.exact._thin import over_thinned, thinned_shape

_LINEAR = ("Conv", "Gemm", "MatMul")
_MATRIX = 2


@dataclass(frozen=True)
class Branch:
    """A layer whose result is added: ``shape`` and ``steps`` are of what it reads of ``entry``, for one item.

    ``window`` is how it slides over that, ``after`` what scales and shifts its rows before the sum.
    """

    node: Node
    entry: str
    shape: tuple[int, ...]
    steps: tuple[int, int]
    window: Window | None
    after: Affine = field(repr=False)


@dataclass(frozen=True)
class JointSum:
    """A sum of two layers' results that are read for nothing else; ``node`` makes ``exit`` of them."""

    node: Node
    branches: tuple[Branch, Branch]

    @property
    def exit(self) -> str:
        """The sum."""
        return self.node.outputs[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the layers' nodes."""
        return tuple(branch.node.name for branch in self.branches)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers' nodes, in the model's order."""
        return tuple(sorted(branch.node.index for branch in self.branches))

    @property
    def inside(self) -> frozenset[int]:
        """The nodes that it makes unnecessary."""
        return frozenset({self.node.index}).union(*(branch.after.nodes for branch in self.branches))

    def sent_again(self, model: Model) -> int:
        """Return how many numbers are sent for it that are sent for something else, too, if all is on devices."""
        return sum(math.prod(each.shape) for each in self.branches if only_reader(model, each.entry) is None)


def joint_sums(model: Model) -> tuple[JointSum, ...]:
    """Return the sums that a device can make, if both layers are on it, and of which fewer numbers cross then.

    Both layers must slide alike over what they read, which is of one size: convolutions of one pixel may have strides.
    Whether other nodes are on devices makes no difference.
    """
    branches = {
        branch.after.value: branch
        for node in model.nodes
        if node.op_type in _LINEAR and why_not(model, node) is None
        for branch in (_branch(model, node),)
    }
    found = []
    for node in model.nodes:
        pair = [branches[name] for name in dict.fromkeys(node.inputs) if name in branches]
        if node.op_type == "Add" and not model.proto.graph.node[node.index].domain and len(pair) == len(node.inputs):
            first, second = pair
            if _joins(model, node, first, second):
                found.append(JointSum(node, (first, second)))
    return tuple(found)


def join(model: Model, joint: JointSum, input_scales: Mapping[str, float]) -> tuple[Layer, tuple[Joined, ...]]:
    """Return the layer that gives a sum, and what its entry is put together of.

    Raises:
        PlanError: if its bounds cannot be proven, or weights are not finite.
    """
    scale = input_scales[joint.branches[0].entry]
    weights, bias, parts = [], np.zeros(1), []
    for each in joint.branches:
        own, linear = input_scales[each.entry], linear_of(model, each.node)
        by_row = (each.after.scale * (own / scale)).reshape(-1, *(1,) * (linear.weight.ndim - 1))
        weights.append((linear.weight * by_row).astype(np.float32))
        bias = bias + linear.bias * each.after.scale + each.after.shift
        parts.append(Joined(each.node.name, each.entry, each.shape, each.steps, own))
    steps, row_scales = quantised(np.concatenate(weights, axis=1))
    layer = Layer(
        name=joint.node.name,
        entry=_unused(model, f"{joint.exit}.joined"),
        exit=joint.exit,
        weight=steps,
        bias=bias.astype(np.float32),
        input_scale=scale,
        row_scales=row_scales,
        window=joint.branches[0].window,
    )
    layer.check()
    return layer, tuple(parts)


def _branch(model: Model, node: Node) -> Branch:
    proto = model.proto.graph.node[node.index]
    entry, result, slides = model.tensors[proto.input[0]], model.tensors[proto.output[0]], window_of(model, node)
    window, steps = over_thinned(slides)
    rows = result.shape[-1 if window is None else 1]
    after = affine_after(model, result.name, rows, convolves=window is not None)
    return Branch(node, entry.name, thinned_shape(entry.shape, steps), steps, window, after)


def _joins(model: Model, node: Node, first: Branch, second: Branch) -> bool:
    pair, made = (first, second), model.tensors.get(node.outputs[0])
    results = [model.tensors.get(each.after.value) for each in pair]
    if made is None or any(each is None or replace(each, name=made.name) != made for each in results):
        return False
    if any(only_reader(model, each.after.value) != node.index for each in pair):
        return False
    alike = first.window == second.window and first.shape[2:] == second.shape[2:]
    terms = sum(each.shape[1] for each in pair) * math.prod(first.window.kernel if first.window else ())
    # A matrix product over more axes has its terms elsewhere.
    matrix = first.window is None and len(first.shape) != _MATRIX
    again = JointSum(node, pair).sent_again(model)
    return alike and not matrix and terms <= MOST_TERMS and again < made.elements


def _unused(model: Model, name: str) -> str:
    known = {*model.producers, *(tensor.name for tensor in model.inputs)}
    while name in known:
        name += "'"
    return name
