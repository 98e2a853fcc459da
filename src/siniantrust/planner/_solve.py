"""The exact solver: every cut on every device, the policy as a hard constraint, the best of what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from siniantrust.errors import NoPlanError, PlanError, PolicyError
from siniantrust.graph import CutSet, Model
from siniantrust.leakage import Audit
from siniantrust.planner._alternatives import (
    describe_spread,
    list_alternatives,
    list_refusals,
    name_cuts,
    trusted_alternative,
)
from siniantrust.planner._candidates import CandidateTable, Row
from siniantrust.planner._compose import Placement, compose_parts, compose_prediction, compose_values, place
from siniantrust.planner._costs import CostProfile
from siniantrust.planner._explain import explain_parts, explain_plan, list_warnings, warn_of_shared_weights
from siniantrust.planner._flow import trace_flow
from siniantrust.planner._plan import ENCLAVE, Alternative, LabelledValue, Plan, Prediction, name_devices
from siniantrust.planner._policy import Policy
from siniantrust.planner._several import search_spreads, spread_terms
from siniantrust.planner._spread import Spread
from siniantrust.planner._verdict import judge_cuts

# Both searches look at every device alone, and may add up in another order: the last digits are no reason for a choice.
_WORTH_IT = 1 + 1e-9


@dataclass(frozen=True)
class _Draft:
    """What differs between a split and the whole model in the enclave."""

    cut_ids: tuple[str, ...]
    placement: Placement
    values: tuple[LabelledValue, ...]
    prediction: Prediction
    reason: str


def solve(model: Model, cuts: CutSet, *, policy: Policy, audit: Audit | None, costs: CostProfile) -> Plan:
    """Find the placement that the policy allows with the lowest predicted latency (or period).

    The search is exact over the cuts given: the first part in the enclave; the rest on one device or, nested cut by
    nested cut, in turn on several, each with one part (for the period also several with the same part); for output
    privacy the last part in the enclave again; and the whole model in the enclave. Equal costs are settled by the other
    cost, then by order: the enclave first, then one device, in the cuts' and the policy's order.

    Args:
        model: the model.
        cuts: its cuts.
        policy: what the owner of the data demands.
        audit: what attacks on this model's cuts achieved; without it no private value may leave the enclave.
        costs: seconds per node and device.

    Raises:
        PolicyError: if the policy names a public input that the model does not have.
        AuditError: if the audit belongs to another model.
        PlanError: if the costs belong to another model or lack a device.
        NoPlanError: if the policy allows no candidate; ``refusals`` says why, one line per cut.
    """
    _check_inputs(model, policy, costs)
    watched = {cut.id: cut.tensors for cut in cuts.cuts}
    for audited in audit.cuts if audit is not None and audit.model_sha256 == model.sha256 else ():
        watched.setdefault(audited.cut_id, audited.tensors)
    flow = trace_flow(model, watched, public_inputs=policy.public_inputs)
    offered = frozenset(cut.id for cut in cuts.cuts)
    table = CandidateTable(flow, policy, judge_cuts(flow, policy, audit), costs, offered)
    rows = table.rows()
    trusted = trusted_alternative(table)
    split, unsearched = _best_split(table, rows)
    if split is not None and trusted.refusal is None and _rank(trusted, policy) <= _rank(split, policy):
        split = None
    elif split is None and trusted.refusal is not None:
        refusals = list_refusals(flow, rows, trusted)
        raise NoPlanError(f"no placement of '{model.name}' satisfies the policy; {refusals[-1]}", refusals)
    alternatives, unlisted = list_alternatives(table, rows)
    if split is None:
        draft = _draft_trusted(table, trusted)
    else:
        draft = _draft_split(table, split, audit, trusted)
        if split.shared:
            alternatives.append(describe_spread(table, split))
    warnings = list_warnings(model, cuts, policy, audit, split=split is not None)
    warnings += [unsearched] if unsearched is not None else []
    warnings += warn_of_shared_weights(model, draft.placement.part_of, draft.placement.devices)
    if unlisted:
        warnings.append(f"{unlisted} candidates that are worse than those listed were examined but are not listed.")
    return Plan(
        model_name=model.name,
        model_sha256=model.sha256,
        audit_id=audit.id if audit is not None else None,
        policy=policy,
        threat_model=policy.threat_model,
        cut_ids=draft.cut_ids,
        parts=compose_parts(model, draft.placement),
        values=draft.values,
        prediction=draft.prediction,
        alternatives=(trusted, *alternatives),
        warnings=tuple(warnings),
        machine=costs.machine,
        reason=draft.reason,
    )


def _rank(found: Spread | Alternative, policy: Policy) -> tuple[float, float]:
    by_latency = policy.objective.minimise == "latency"
    return (found.latency_s, found.period_s) if by_latency else (found.period_s, found.latency_s)


def _check_inputs(model: Model, policy: Policy, costs: CostProfile) -> None:
    known = {tensor.name for tensor in model.inputs}
    unknown = [name for name in policy.public_inputs if name not in known]
    if unknown:
        raise PolicyError(f"policy: public_inputs: the model has no input '{unknown[0]}'; it has {sorted(known)}")
    if costs.model_sha256 != model.sha256:
        raise PlanError(
            f"costs: measured for model {costs.model_sha256[:12]}, but the model is {model.sha256[:12]}; measure again"
        )
    for device in policy.device:
        if device.name not in costs.devices or device.name not in costs.transfers:
            raise PlanError(f"costs: nothing is known of device '{device.name}'; measure again with it")


def _best_split(table: CandidateTable, rows: Sequence[Row]) -> tuple[Spread | None, str | None]:
    """Return the best placement with untrusted parts, over one device or several, and what was not searched.

    Several devices must be worth it: where one is as good, it is taken, and of several the first in order.
    """
    alone: Spread | None = None
    for row in rows:
        for position, refusal in enumerate(row.refusals):
            if refusal is None:
                found = row.spread(position)
                if alone is None or _rank(found, table.policy) < _rank(alone, table.policy):
                    alone = found
    together, unsearched = search_spreads(table, rows)
    if alone is None or (
        together is not None and _rank(together, table.policy)[0] * _WORTH_IT < _rank(alone, table.policy)[0]
    ):
        return together, unsearched
    return alone, unsearched


def _draft_trusted(table: CandidateTable, trusted: Alternative) -> _Draft:
    reason = "No split that the policy allows is faster, so everything stays in the enclave."
    placement = Placement((0,) * len(table.flow.model.nodes), (ENCLAVE,), (reason,), ((),))
    return _Draft(
        cut_ids=(),
        placement=placement,
        values=compose_values(table.flow, placement, table.policy, verdict=None, audit_id=None),
        prediction=compose_prediction(table.trusted_terms, 0),
        reason=explain_plan(cut_ids=(), device=None, latency_s=trusted.latency_s, trusted_s=None),
    )


def _draft_split(table: CandidateTable, split: Spread, audit: Audit | None, trusted: Alternative) -> _Draft:
    flow = table.flow
    verdict = table.verdicts[split.start]
    cut_ids = name_cuts(flow, split.boundaries)
    private = any(name in flow.private for name in flow.crossing[split.start])
    devices = [stage.devices for stage in split.stages]
    reasons = explain_parts(
        cut_ids=cut_ids,
        devices=devices,
        returns=split.end != flow.whole,
        leakage_upper=verdict.leakage_upper if private and verdict.refusal is None else None,
        policy=table.policy,
    )
    placement = place(flow, boundaries=split.boundaries, devices=devices, reasons=reasons)
    prediction = compose_prediction(
        spread_terms(table, split), 0, periods_s=[stage.period_s for stage in split.stages] if split.shared else ()
    )
    audit_id = audit.id if audit is not None else None
    return _Draft(
        cut_ids=cut_ids,
        placement=placement,
        values=compose_values(flow, placement, table.policy, verdict=verdict, audit_id=audit_id),
        prediction=prediction,
        reason=explain_plan(
            cut_ids=cut_ids,
            device=name_devices(devices),
            latency_s=prediction.latency_s,
            trusted_s=trusted.latency_s,
        ),
    )
