"""Plans with layers under one-time pads: pads before the safe cut, plain after it, or pads alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from siniantrust.errors import NoPlanError
from siniantrust.graph import CutSet, Model, prefix_nodes
from siniantrust.leakage import Audit
from siniantrust.planner._costs import CostProfile
from siniantrust.planner._masked_costs import PaddedNode, Padding, choose_padding
from siniantrust.planner._plan import (
    ENCLAVE,
    Alternative,
    CostTerm,
    Masking,
    PaddedLayer,
    PaddedValue,
    Plan,
    PlannedPart,
    Prediction,
)
from siniantrust.planner._policy import Policy
from siniantrust.planner._solve import solve
from siniantrust.trust import Label

Mask = Literal["none", "auto", "exact"]
_RESIDUE_BYTES = 4
# What the enclave holds of a padded weight beyond its four bytes in float32: it has it in float64, to prepare
# corrections with, and twice in eight bits.
_EXTRA_PER_WEIGHT_BYTES = 6 / 4
_SHOWN = 3
PADDED_TERM = "padded layers of part 1, moved there and back"


def solve_masked(
    model: Model, cuts: CutSet, *, policy: Policy, audit: Audit | None, costs: CostProfile, mask: Mask
) -> Plan:
    """Find the best placement, with layers of the first trusted part under pads where ``mask`` says so.

    ``none`` is ``solve``. ``exact`` lets private values leave under pads only: no plain cut, and every layer whose work
    inside is more than what masking it is, what is fixed for each layer left out, since a batch shares it. ``auto``
    pads the layers that take the enclave less time so, all counted, and takes the best cut with that; the plan without
    pads stands where it is better, unless it keeps everything in the enclave.

    Raises:
        NoPlanError: if the policy allows nothing, or ``exact`` finds no layer that is worth a pad; and as ``solve``.
        PolicyError: if the provider cannot hold pads, or no device may see padded values.
    """
    if mask == "none":
        return solve(model, cuts, policy=policy, audit=audit, costs=costs)
    padding = choose_padding(model, policy, costs, count_fixed=mask == "auto")
    if mask == "exact":
        none = CutSet((), capped=False, cap=cuts.cap)
        if not padding.nodes:
            raise _worthless(model, padding)
        inside = solve(model, none, policy=_whole(policy), audit=audit, costs=costs)
        padded = _padded_plan(model, none, policy, audit, costs, padding, mask)
        assert padded is not None  # noqa: S101 - its one part has all nodes
        return _with_alternatives(padded, inside.alternatives[:1])
    try:
        padded = _padded_plan(model, cuts, policy, audit, costs, padding, mask)
    except NoPlanError:
        padded = None
    try:
        plain = solve(model, cuts, policy=policy, audit=audit, costs=costs)
    except NoPlanError:
        if padded is None:
            raise
        return padded
    if padded is None:
        return plain
    if len(plain.parts) > 1 and _rank(plain.prediction, policy) <= _rank(padded.prediction, policy):
        return _with_alternatives(plain, padded.alternatives)
    return _with_alternatives(padded, plain.alternatives)


def _worthless(model: Model, padding: Padding) -> NoPlanError:
    lines = tuple(f"node '{name}': {reason}" for name, reason in padding.kept.items())
    why = f"; {lines[0]}" if lines else ": it has no convolution or product with constant weights"
    return NoPlanError(f"masks: no layer of '{model.name}' is worth a pad{why}; use --mask auto or none", lines)


def _whole(policy: Policy, *, less_bytes: int = 0) -> Policy:
    """Return the policy as it is for a part that is the whole model, some of which is computed outside."""
    objective = policy.objective.model_copy(update={"allow_all_trusted": True})
    enclave = policy.enclave.model_copy(update={"memory_bytes": max(policy.enclave.memory_bytes - less_bytes, 1)})
    return policy.model_copy(update={"objective": objective, "enclave": enclave})


def _rank(prediction: Prediction, policy: Policy) -> tuple[float, float]:
    found = (prediction.latency_s, prediction.period_s)
    return found if policy.objective.minimise == "latency" else found[::-1]


def _padded_plan(
    model: Model,
    cuts: CutSet,
    policy: Policy,
    audit: Audit | None,
    costs: CostProfile,
    padding: Padding,
    mode: Literal["auto", "exact"],
) -> Plan | None:
    """Return the best plan by costs with pads; None if its first part has no layer to pad.

    Raises:
        NoPlanError: if the policy allows none.
    """
    weights = sum(each.node.parameter_bytes for each in padding.nodes.values())
    less_bytes = int(weights * _EXTRA_PER_WEIGHT_BYTES)
    allowed = _whole(policy, less_bytes=less_bytes)
    try:
        found = solve(model, cuts, policy=allowed, audit=audit, costs=padding.costs(costs))
    except NoPlanError as fault:
        raise NoPlanError(
            f"masks: with {less_bytes:,} bytes for padded weights in float64 beside: {fault}", fault.refusals
        ) from None
    first = found.parts[0]
    nodes = [padding.nodes[name] for name in first.nodes if name in padding.nodes]
    if not nodes:
        return None
    prediction = _prediction(found, nodes, padding, costs)
    before = {cut.id: prefix_nodes(model, cut) for cut in cuts.cuts}
    flops = max(model.flops, 1)
    alternatives = []
    for each in found.alternatives:
        names = before[each.cut_ids[0]] if each.cut_ids else frozenset(range(len(model.nodes)))
        padded = [node for node in padding.nodes.values() if node.node.index in names]
        if not padded:
            continue
        share = each.trusted_flops_share - sum(node.node.flops for node in padded) / flops
        chosen = (each.cut_ids, each.device) == (found.cut_ids, found.devices)
        alternatives.append(
            each.model_copy(
                update={
                    "padded_layers": len(padded),
                    "trusted_flops_share": max(share, 0.0),
                    "latency_s": prediction.latency_s if chosen else each.latency_s,
                    "period_s": prediction.period_s if chosen else each.period_s,
                    "boundary_bytes": each.boundary_bytes + sum(_crossing_bytes(model, padded)),
                }
            )
        )
    return found.model_copy(
        update={
            "policy": policy,
            "parts": (_with_reason(first, nodes, padding, alone=len(found.parts) == 1), *found.parts[1:]),
            "prediction": prediction,
            "alternatives": tuple(alternatives),
            "warnings": (*found.warnings, *_warnings(nodes, found)),
            "reason": _sentence(found, prediction, len(nodes), padding.devices[0]),
            "masking": _described(model, nodes, padding, costs, mode, found),
        }
    )


def _with_alternatives(plan: Plan, others: Sequence[Alternative]) -> Plan:
    return plan.model_copy(update={"alternatives": (*plan.alternatives, *others)})


def _prediction(found: Plan, nodes: Sequence[PaddedNode], padding: Padding, costs: CostProfile) -> Prediction:
    """Take what the solver counted as the enclave's apart: whose work it is, and what crosses.

    Behind the last cut nothing is padded, since a device has seen what the last part reads: there the nodes take what
    they take inside.
    """
    device = padding.devices[0]
    less_s = {"compute part 1": sum(each.latency_s for each in nodes)}
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
        (PADDED_TERM, device, sum(each.move_s + each.device_s for each in nodes), f"{basis}; the way there: {moved}"),
    )
    terms += [CostTerm(what=what, where=where, latency_s=seconds, basis=how) for what, where, seconds, how in padded]
    stages: dict[str, float] = {}
    for term in terms:
        stages[term.where] = stages.get(term.where, 0.0) + term.latency_s
    return Prediction(latency_s=sum(stages.values()), period_s=max(stages.values()), terms=tuple(terms))


def _crossing_bytes(model: Model, nodes: Sequence[PaddedNode]) -> list[int]:
    names = [*dict.fromkeys(each.entry for each in nodes), *(each.exit for each in nodes)]
    return [_RESIDUE_BYTES * model.tensors[name].elements for name in names]


def _described(
    model: Model,
    nodes: Sequence[PaddedNode],
    padding: Padding,
    costs: CostProfile,
    mode: Literal["auto", "exact"],
    found: Plan,
) -> Masking:
    values: list[tuple[str, Literal["sent", "received"]]] = [
        (name, "sent") for name in dict.fromkeys(each.entry for each in nodes)
    ]
    values += [(each.exit, "received") for each in nodes]
    inside = set(found.parts[0].nodes)
    assert costs.masking is not None  # noqa: S101 - padding was chosen with it
    return Masking(
        mode=mode,
        part=found.parts[0].name,
        devices=padding.devices,
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
                size_bytes=_RESIDUE_BYTES * model.tensors[name].elements,
            )
            for name, direction in values
        ),
        kept={name: reason for name, reason in padding.kept.items() if name in inside},
        offline_s=sum(each.offline_s for each in nodes),
        basis=costs.masking.basis,
    )


def _with_reason(part: PlannedPart, nodes: Sequence[PaddedNode], padding: Padding, *, alone: bool) -> PlannedPart:
    listed = ", ".join(f"'{each.node.name}'" for each in nodes[:_SHOWN]) + (" and more" if len(nodes) > _SHOWN else "")
    padded = f"Under pads on '{padding.devices[0]}': {len(nodes)} layers ({listed})."
    held = "Nothing of it leaves in the clear but the outputs." if alone else part.reason
    return part.model_copy(update={"reason": f"{held} {padded}"})


def _sentence(found: Plan, prediction: Prediction, layers: int, device: str) -> str:
    padded = f"{layers} layers of part 1 run on '{device}' under pads"
    if len(found.parts) > 1:
        return f"{padded}. {found.reason}"
    return f"{padded}, the rest of the model in the enclave: {prediction.latency_s * 1e3:.3g} ms predicted."


def _warnings(nodes: Sequence[PaddedNode], found: Plan) -> list[str]:
    weights = sum(each.node.parameters for each in nodes)
    warnings = [f"The host learns the weights of the {len(nodes)} padded layers ({weights:,} numbers, quantised)."]
    if any(not part.trusted for part in found.parts):
        warnings.append(
            "The audit attacked the float network; behind padded layers what crosses is the quantised network's, which "
            "differs from it by the quantisation alone."
        )
    return warnings
