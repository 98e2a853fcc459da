"""From the chosen layers under pads to the plan: what crosses, predicted terms, and the sentences that explain them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from siniantrust.graph import Model
from siniantrust.planner._costs import CostProfile
from siniantrust.planner._masked_costs import RESIDUE_BYTES, PaddedNode, Padding, crossing_values
from siniantrust.planner._plan import (
    ENCLAVE,
    CostTerm,
    Masking,
    PaddedLayer,
    PaddedValue,
    Plan,
    PlannedPart,
    Prediction,
)
from siniantrust.trust import Label

_SHOWN = 3
_PADDED_TERM = "padded layers of part 1, moved there and back"


def compose_masked_prediction(
    found: Plan, nodes: Sequence[PaddedNode], padding: Padding, costs: CostProfile
) -> Prediction:
    """Take what the solver counted as the enclave's apart: whose work it is, and what crosses.

    Behind the last cut nothing is padded, since a device has seen what the last part reads: there the nodes take what
    they take inside.
    """
    device = padding.devices[0]
    less_s = {"compute part 1": sum(padding.nodes[each.node.name].latency_s for each in nodes)}
    for number, part in enumerate(found.parts[1:], start=2):
        if part.trusted:
            behind = [padding.nodes[name] for name in part.nodes if name in padding.nodes]
            less_s[f"compute part {number}"] = sum(each.latency_s - each.inside_s for each in behind)
    terms = [
        term.model_copy(update={"latency_s": max(term.latency_s - less_s.get(term.what, 0.0), 0.0)})
        if term.where == ENCLAVE
        else term
        for term in found.prediction.terms
    ]
    assert costs.masking is not None  # noqa: S101 - padding was chosen with it
    basis = costs.masking.basis
    moved = costs.transfers[device].basis
    padded = (
        ("mask, check and unmask in part 1", ENCLAVE, sum(each.enclave_s for each in nodes), basis),
        ("cross with padded values and back", ENCLAVE, sum(each.cross_s for each in nodes), costs.crossing.basis),
        (_PADDED_TERM, device, sum(each.move_s + each.device_s for each in nodes), f"{basis}; the way there: {moved}"),
    )
    terms += [CostTerm(what=what, where=where, latency_s=seconds, basis=how) for what, where, seconds, how in padded]
    stages: dict[str, float] = {}
    for term in terms:
        stages[term.where] = stages.get(term.where, 0.0) + term.latency_s
    return Prediction(latency_s=sum(stages.values()), period_s=max(stages.values()), terms=tuple(terms))


def compose_masking(
    model: Model,
    nodes: Sequence[PaddedNode],
    padding: Padding,
    costs: CostProfile,
    mode: Literal["auto", "exact"],
    found: Plan,
) -> Masking:
    """Describe the layers under pads, the values that cross for them, and which linear ones of the part stay inside."""
    inside = set(found.parts[0].nodes)
    assert costs.masking is not None  # noqa: S101 - padding was chosen with it
    return Masking(
        mode=mode,
        part=found.parts[0].name,
        devices=padding.devices,
        arithmetic=costs.masking.arithmetic,
        layers=tuple(
            PaddedLayer(
                node=each.node.name,
                entry=each.entry,
                exit=each.exit,
                masked_s=each.enclave_s,
                device_s=each.device_s,
                inside_s=each.inside_s,
                reason=each.reason,
            )
            for each in nodes
        ),
        values=tuple(
            PaddedValue(
                tensor=name,
                label=Label.PADDED,
                direction=direction,
                size_bytes=RESIDUE_BYTES * model.tensors[name].elements,
            )
            for name, direction in crossing_values(nodes)
        ),
        kept={name: reason for name, reason in padding.kept.items() if name in inside},
        offline_s=sum(each.offline_s for each in nodes),
        basis=costs.masking.basis,
    )


def compose_part(part: PlannedPart, nodes: Sequence[PaddedNode], padding: Padding, *, alone: bool) -> PlannedPart:
    """Add to the sentence of the masked part what of it runs under pads; ``alone`` says that it is the whole model."""
    listed = ", ".join(f"'{each.node.name}'" for each in nodes[:_SHOWN]) + (" and more" if len(nodes) > _SHOWN else "")
    padded = f"Under pads on '{padding.devices[0]}': {len(nodes)} layers ({listed})."
    held = "Nothing of it leaves in the clear but the outputs." if alone else part.reason
    return part.model_copy(update={"reason": f"{held} {padded}"})


def explain_padded(found: Plan, prediction: Prediction, layers: int, device: str) -> str:
    """Return the plan's one sentence."""
    padded = f"{layers} layer{'s' * (layers > 1)} of part 1 under pads on '{device}'"
    if len(found.parts) > 1:
        return f"{padded}. {found.reason}"
    return f"{padded}, the rest of the model in the enclave: {prediction.latency_s * 1e3:.3g} ms predicted."


def warn_of_pads(nodes: Sequence[PaddedNode], found: Plan) -> list[str]:
    """Return what pads do not hide."""
    weights = sum(each.node.parameters for each in nodes)
    warnings = [f"The host learns the weights of the {len(nodes)} padded layers ({weights:,} numbers, quantised)."]
    if any(not part.trusted for part in found.parts):
        warnings.append(
            "The audit attacked the float network; behind padded layers what crosses is the quantised network's, which "
            "differs from it by the quantisation alone."
        )
    return warnings
