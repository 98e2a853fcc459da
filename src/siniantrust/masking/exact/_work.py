"""What layers are to the trusted side in quantities: what crosses, what it is weighed with, what it takes inside.

A layer that stays inside pays for more than itself: numbers pass between it and its neighbours under pads as float32,
in a call of its own. So what a set of layers takes is counted for the set.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx
from onnx import helper

from siniantrust.graph import Model, Node
from siniantrust.masking.exact._costs import Costs
from siniantrust.masking.exact._offer import why_not
from siniantrust.masking.exact._sums import JointSum, joint_sums
from siniantrust.masking.exact._verify import taps

_KERNEL_AXES = 2
# Unmasking does these, too, where they follow a layer.
_TAKEN = frozenset({"Add", "BatchNormalization", "MaxPool", "Relu"})


@dataclass(frozen=True, slots=True)
class LayerWork:
    """An offerable layer.

    Attributes:
        node: the node.
        entry: the value that it reads.
        source: the layer whose result this is, activations and sums aside; None where it is made inside in any case.
        added: the layers whose results are added to its own, activations and sums aside.
        summed_with: the layer whose result devices add its own to, if both are under pads.
        sent_again: numbers that are sent once more for that sum.
        entered: numbers in it.
        reads: how many of them it looks at: fewer where a kernel of one pixel has a stride.
        taps: weights that a number is weighed with in the check.
        received: numbers of its result.
        products: multiplications; ``is_point`` where the kernel has one pixel, or it is a matrix product.
        weights: numbers in its weights.
        is_read_inside: whether something that stays inside reads its result, activations and sums aside.
        known_s: what it takes inside, where that was measured.
    """

    node: Node
    entry: str
    source: str | None
    added: frozenset[str]
    summed_with: str | None
    sent_again: int
    entered: int
    reads: int
    taps: int
    received: int
    products: int
    is_point: bool
    weights: int
    is_read_inside: bool
    known_s: float | None

    @property
    def sources(self) -> frozenset[str]:
        """The layers whose results are read where it is computed."""
        return self.added if self.source is None else self.added | {self.source}

    def masked_s(self, costs: Costs) -> float:
        """Return what it takes under a pad, but for its input's."""
        return self.reads * self.taps * costs.verify_s + self.received * costs.unmask_s + costs.layer_s

    def summed_s(self, costs: Costs) -> float:
        """Return how much less it and ``summed_with`` take together: one result comes back instead of two.

        It is a little more where nothing else under pads reads as much of what is sent again.
        """
        if self.summed_with is None:
            return 0.0
        return max(self.received * costs.unmask_s + costs.layer_s - self.sent_again * costs.mask_s, 0.0)

    def inside_s(self, costs: Costs) -> float:
        """Return what it takes inside, but for what passes between it and its neighbours."""
        if self.known_s is not None:
            return self.known_s
        each_s = costs.point_s if self.is_point else costs.product_s
        return self.products * each_s + self.weights * costs.weight_s

    def enter_s(self, costs: Costs) -> float:
        """Return what it takes that its input was made inside and goes under a pad."""
        return self.entered * (costs.pass_s + costs.quantise_s) + costs.handover_s

    def leave_s(self, costs: Costs) -> float:
        """Return what it takes that its result was under a pad and is read inside."""
        return self.received * costs.pass_s + costs.handover_s


def layer_works(model: Model, known_s: Mapping[str, float]) -> dict[str, LayerWork]:
    """Return every offerable layer of ``model``, by name, in the model's order.

    Args:
        model: the model.
        known_s: what layers take inside, by name, as far as it was measured.
    """
    offerable = [node for node in model.nodes if why_not(model, node) is None]
    names = {node.index: node.name for node in offerable}
    source: dict[str, int | None] = {}
    read_inside: set[str] = set()
    added: dict[str, set[str]] = {}
    for node in model.nodes:
        carried = [found for name in node.inputs if (found := source.get(name)) is not None]
        if node.index in names:
            made: int | None = node.index
        elif node.op_type in _TAKEN:
            made = max(carried, default=None)
            for index in carried:
                if made is not None and index != made:
                    added.setdefault(names[made], set()).add(names[index])
        else:
            made = None
            read_inside |= {names[index] for index in carried}
        source |= dict.fromkeys(node.outputs, made)
    constants = {tensor.name: tensor for tensor in model.proto.graph.initializer}
    sums = {joint.names[0]: joint for joint in joint_sums(model)}
    works = {}
    for node in offerable:
        proto = model.proto.graph.node[node.index]
        origin = source.get(proto.input[0])
        works[node.name] = _work(
            model,
            node,
            constants[proto.input[1]],
            source=None if origin is None else names[origin],
            added=frozenset(added.get(node.name, ())),
            joint=sums.get(node.name),
            is_read_inside=node.name in read_inside,
            # Nothing is what a profiler says of a node that the runtime took into another one.
            known_s=known_s.get(node.name) or None,
        )
    return works


def _work(
    model: Model,
    node: Node,
    weight: onnx.TensorProto,
    *,
    source: str | None,
    added: frozenset[str],
    joint: JointSum | None,
    is_read_inside: bool,
    known_s: float | None,
) -> LayerWork:
    proto = model.proto.graph.node[node.index]
    entry, result = model.tensors[proto.input[0]], model.tensors[proto.output[0]]
    convolves = node.op_type == "Conv"
    kernel = tuple(weight.dims[-_KERNEL_AXES:]) if convolves else (1, 1)
    strides = next((helper.get_attribute_value(each) for each in proto.attribute if each.name == "strides"), (1, 1))
    reads = entry.elements
    if convolves and kernel == (1, 1):
        reads = math.prod(entry.shape[:2])
        reads *= math.prod(-(-size // step) for size, step in zip(entry.shape[2:], strides, strict=True))
    return LayerWork(
        node=node,
        entry=proto.input[0],
        source=source,
        added=added,
        summed_with=None if joint is None else joint.names[1],
        sent_again=0 if joint is None else joint.sent_again(model),
        entered=entry.elements,
        reads=reads,
        taps=taps(kernel, strides, entry.shape[2:], result.shape[2:]) if convolves else 1,
        received=result.elements,
        products=result.elements * math.prod(weight.dims) // result.shape[1 if convolves else -1],
        is_point=kernel == (1, 1),
        weights=math.prod(weight.dims),
        is_read_inside=is_read_inside,
        known_s=known_s,
    )


def total_s(works: Mapping[str, LayerWork], offered: Collection[str], costs: Costs) -> float:
    """Return what all layers take the trusted side where the ``offered`` ones go to devices."""
    total = sum(work.masked_s(costs) if name in offered else work.inside_s(costs) for name, work in works.items())
    total -= sum(work.summed_s(costs) for name, work in works.items() if {name, work.summed_with} <= {*offered})
    sent: dict[str, int] = {}
    entering: dict[str, float] = {}
    leaving: dict[str, float] = {}
    for name, work in works.items():
        if name in offered:
            sent[work.entry] = max(sent.get(work.entry, 0), work.reads)
            if work.source is None or work.source not in offered:
                entering[work.entry] = work.enter_s(costs)
            if work.is_read_inside:
                leaving[name] = work.leave_s(costs)
        else:
            leaving |= {source: works[source].leave_s(costs) for source in work.sources if source in offered}
    return total + sum(sent.values()) * costs.mask_s + sum(entering.values()) + sum(leaving.values())
