"""Which cuts an audit looks at, and why it leaves the others out; what is left out is never safe."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siniantrust.graph import Cut, CutSet, Model, prefix_nodes

_RESHAPES = ("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
# What comes after a useful cut has at least these shares of the operations or of the weights.
_LEAST_FLOPS_SHARE = 0.001
_LEAST_WEIGHTS_SHARE = 0.01
_FLOATS = ("float16", "float32", "float64")


def choose_cuts(
    model: Model, cuts: CutSet, *, include_fusable: bool, max_cuts: int | None
) -> tuple[tuple[Cut, ...], dict[str, str]]:
    """Return the cuts to audit, in order, and for each other cut the reason why it is left out."""
    skipped: dict[str, str] = {}
    kept: list[Cut] = []
    for cut in cuts.cuts:
        reason = _unusable(model, cut)
        twin = _twin(model, cut, kept)
        if reason is None and twin is not None:
            reason = f"the same numbers in another shape as cut '{twin}', which is audited"
        if reason is None and cut.fusable and not include_fusable:
            reason = "only separates an operator from its activation, which a runtime fuses into it"
        if reason is None and not include_fusable and not _worth_leaving(model, cut):
            reason = "less than 0.1 % of the model's work and 1 % of its weights come after it: nothing to gain"
        if reason is None:
            kept.append(cut)
        else:
            skipped[cut.id] = reason
    if max_cuts is not None and len(kept) > max_cuts:
        chosen = _spread(len(kept), max_cuts)
        skipped |= {
            cut.id: f"left out: only {max_cuts} of {len(kept)} cuts were to be audited"
            for index, cut in enumerate(kept)
            if index not in chosen
        }
        kept = [cut for index, cut in enumerate(kept) if index in chosen]
    return tuple(kept), skipped


def _worth_leaving(model: Model, cut: Cut) -> bool:
    """Return whether what comes after the cut is anything to speak of, by operations or by weights."""
    before = [model.nodes[index] for index in prefix_nodes(model, cut)]
    weights = sum(node.parameter_bytes for node in model.nodes)
    flops_after = model.flops - cut.flops_before
    weights_after = weights - sum(node.parameter_bytes for node in before)
    return flops_after >= _LEAST_FLOPS_SHARE * model.flops or weights_after >= _LEAST_WEIGHTS_SHARE * weights


def _unusable(model: Model, cut: Cut) -> str | None:
    for name in cut.tensors:
        tensor = model.tensors.get(name)
        if tensor is None or 0 in tensor.shape:
            return f"tensor '{name}' has no known shape"
        if tensor.dtype not in _FLOATS:
            return f"tensor '{name}' is {tensor.dtype}; the attacks read floating-point features only"
    return None


def _twin(model: Model, cut: Cut, kept: Sequence[Cut]) -> str | None:
    """Return the kept cut whose one tensor ``cut`` only gives another shape, or None."""
    if len(cut.tensors) != 1 or cut.tensors[0] not in model.producers:
        return None
    node = model.nodes[model.producers[cut.tensors[0]]]
    if node.op_type not in _RESHAPES:
        return None
    return next((other.id for other in kept if other.tensors == node.inputs[:1]), None)


def _spread(count: int, wanted: int) -> Sequence[int]:
    """Return ``wanted`` numbers spread evenly over ``range(count)``, the ends among them."""
    indices: list[int] = np.linspace(0, count - 1, wanted).round().astype(int).tolist()
    return indices
