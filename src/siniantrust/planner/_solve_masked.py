"""Plans with layers under one-time pads: pads before the safe cut, plain after it, or pads alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from siniantrust.errors import NoPlanError
from siniantrust.graph import CutSet, Model, prefix_nodes
from siniantrust.leakage import Audit
from siniantrust.planner._compose_masked import (
    compose_masked_prediction,
    compose_masking,
    compose_part,
    explain_padded,
    warn_of_pads,
)
from siniantrust.planner._costs import CostProfile
from siniantrust.planner._masked_costs import RESIDUE_BYTES, PaddedNode, Padding, choose_padding, crossing_values
from siniantrust.planner._plan import Alternative, Plan, Prediction
from siniantrust.planner._policy import Policy
from siniantrust.planner._solve import solve

Mask = Literal["none", "auto", "exact"]


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


def _whole(policy: Policy) -> Policy:
    """Return the policy as it is for a part that is the whole model, some of which is computed outside."""
    objective = policy.objective.model_copy(update={"allow_all_trusted": True})
    return policy.model_copy(update={"objective": objective})


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
    found = solve(model, cuts, policy=_whole(policy), audit=audit, costs=padding.costs(costs))
    first = found.parts[0]
    mine = set(first.nodes)
    nodes = padding.within({node.index for node in model.nodes if node.name in mine})
    if not nodes:
        return None
    prediction = compose_masked_prediction(found, nodes, padding, costs)
    everywhere = frozenset(range(len(model.nodes)))
    before = {cut.id: frozenset(prefix_nodes(model, cut)) for cut in cuts.cuts}
    padded_at = {cut_id: padding.within(inside) for cut_id, inside in [("", everywhere), *before.items()]}
    alternatives = []
    for each in found.alternatives:
        padded = padded_at[each.cut_ids[0] if each.cut_ids else ""]
        if padded:
            chosen = (each.cut_ids, each.device) == (found.cut_ids, found.devices)
            alternatives.append(_described(model, each, padded, prediction if chosen else None))
    return found.model_copy(
        update={
            "policy": policy,
            "parts": (compose_part(first, nodes, padding, alone=len(found.parts) == 1), *found.parts[1:]),
            "prediction": prediction,
            "alternatives": tuple(alternatives),
            "warnings": (*found.warnings, *warn_of_pads(nodes, found)),
            "reason": explain_padded(found, prediction, len(nodes), padding.devices[0]),
            "masking": compose_masking(model, nodes, padding, costs, mode, found),
        }
    )


def _with_alternatives(plan: Plan, others: Sequence[Alternative]) -> Plan:
    return plan.model_copy(update={"alternatives": (*plan.alternatives, *others)})


def _described(
    model: Model, alternative: Alternative, padded: Sequence[PaddedNode], prediction: Prediction | None
) -> Alternative:
    """Return an alternative with its padded layers; ``prediction`` is the plan's, where it is the chosen one."""
    share = alternative.trusted_flops_share - sum(each.node.flops for each in padded) / max(model.flops, 1)
    crossing = sum(RESIDUE_BYTES * model.tensors[name].elements for name, _ in crossing_values(padded))
    predicted = alternative if prediction is None else prediction
    return alternative.model_copy(
        update={
            "padded_layers": len(padded),
            "trusted_flops_share": max(share, 0.0),
            "latency_s": predicted.latency_s,
            "period_s": predicted.period_s,
            "boundary_bytes": alternative.boundary_bytes + crossing,
        }
    )
