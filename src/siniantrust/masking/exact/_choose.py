"""Which layers are worth a pad: what masking one costs the trusted side, against computing it there."""

from __future__ import annotations

import math
from dataclasses import dataclass

from siniantrust.graph import Model, Node
from siniantrust.masking.exact._costs import Costs
from siniantrust.masking.exact._offer import why_not

_KERNEL_AXES = 2


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether a node is to be offered, and the figures behind it; ``reason`` says it in words."""

    offered: bool
    reason: str
    masked_s: float = 0.0
    inside_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An offerable node: what it takes inside, and under a pad but for masking its input."""

    node: Node
    entry: str
    products: int
    inside_s: float
    masked_s: float

    @property
    def gain_s(self) -> float:
        return self.inside_s - self.masked_s


def choose_layers(model: Model, costs: Costs) -> dict[str, Choice]:
    """Choose the nodes that take the trusted side less time under a pad than computed there.

    Nodes that read the same value share its pad, so that they are weighed together: those that gain without counting
    their input are offered if they gain more, all together, than masking it costs.

    Args:
        model: the model.
        costs: what work costs on the trusted side.

    Returns:
        A choice for every node, by its name.
    """
    chosen: dict[str, Choice] = {}
    groups: dict[str, list[_Candidate]] = {}
    for node in model.nodes:
        reason = why_not(model, node)
        if reason is None:
            candidate = _candidate(model, node, costs)
            groups.setdefault(candidate.entry, []).append(candidate)
        else:
            chosen[node.name] = Choice(offered=False, reason=reason)
    for entry, group in groups.items():
        mask_s = model.tensors[entry].elements * costs.mask_s
        gaining = [candidate for candidate in group if candidate.gain_s > 0]
        worth_it = sum(candidate.gain_s for candidate in gaining) > mask_s
        for candidate in group:
            offered = worth_it and candidate in gaining
            shared = len(gaining) if offered and len(gaining) > 1 else 1
            masked_s = candidate.masked_s + mask_s / shared
            chosen[candidate.node.name] = Choice(
                offered=offered,
                reason=_in_words(model, candidate, masked_s, shared),
                masked_s=masked_s,
                inside_s=candidate.inside_s,
            )
    return {node.name: chosen[node.name] for node in model.nodes}


def _candidate(model: Model, node: Node, costs: Costs) -> _Candidate:
    proto = model.proto.graph.node[node.index]
    weights = next(tensor for tensor in model.proto.graph.initializer if tensor.name == proto.input[1])
    result = model.tensors[proto.output[0]]
    convolves = node.op_type == "Conv"
    taps = math.prod(weights.dims[-_KERNEL_AXES:]) if convolves else 1
    sent, received = model.tensors[proto.input[0]].elements, result.elements
    products = received * math.prod(weights.dims) // result.shape[1 if convolves else -1]
    masked_s = sent * taps * costs.verify_s + received * costs.unmask_s + costs.layer_s
    return _Candidate(node, proto.input[0], products, products * costs.product_s, masked_s)


def _in_words(model: Model, candidate: _Candidate, masked_s: float, shared: int) -> str:
    numbers = model.tensors[candidate.entry].elements + model.tensors[candidate.node.outputs[0]].elements
    together = f", its input's pad shared by {shared}" if shared > 1 else ""
    return (
        f"{candidate.node.op_type}: {candidate.products / numbers:.0f} products for each number that crosses; masked "
        f"{masked_s * 1e3:.2f} ms{together}, inside {candidate.inside_s * 1e3:.2f} ms"
    )
