"""The exact solver: every cut on every device, the policy as a hard constraint, the best of what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from siniantrust.errors import NoPlanError, PlanError, PolicyError
from siniantrust.graph import CutSet, Model
from siniantrust.leakage import Audit
from siniantrust.planner._alternatives import list_alternatives, list_refusals, name_cuts, trusted_alternative
from siniantrust.planner._candidates import CandidateTable, Row
from siniantrust.planner._compose import Placement, compose_parts, compose_prediction, compose_values, place
from siniantrust.planner._costs import CostProfile
from siniantrust.planner._explain import explain_parts, explain_plan, list_warnings, warn_of_shared_weights
from siniantrust.planner._flow import trace_flow
from siniantrust.planner._plan import ENCLAVE, Alternative, LabelledValue, Plan, Prediction
from siniantrust.planner._policy import Policy
from siniantrust.planner._predict import split_terms
from siniantrust.planner._traffic import measure_traffic
from siniantrust.planner._verdict import judge_cuts


@dataclass(frozen=True)
class _Choice:
    """A split: a row, a position among its ends, and how it ranks (lower is better)."""

    row: Row
    position: int
    rank: tuple[float, float]


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

    The search is exact over the cuts given: every cut on every device (trusted, then untrusted), for output privacy
    also every nested pair of cuts (trusted, untrusted, trusted), and the whole model in the enclave. Equal costs are
    settled by the other cost, then by order: the enclave first, then the cuts' and the policy's order.

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
    choice = _best(rows, policy)
    if trusted.refusal is None and (choice is None or _rank_trusted(trusted, policy) <= choice.rank):
        choice = None
    elif choice is None:
        refusals = list_refusals(flow, rows, trusted)
        raise NoPlanError(f"no placement of '{model.name}' satisfies the policy; {refusals[-1]}", refusals)
    alternatives, unlisted = list_alternatives(table, rows)
    draft = _draft_trusted(table, trusted) if choice is None else _draft_split(table, choice, audit, trusted)
    warnings = list_warnings(model, cuts, policy, audit, split=choice is not None)
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


def _rank(latency_s: float, period_s: float, policy: Policy) -> tuple[float, float]:
    return (latency_s, period_s) if policy.objective.minimise == "latency" else (period_s, latency_s)


def _rank_trusted(trusted: Alternative, policy: Policy) -> tuple[float, float]:
    return _rank(trusted.latency_s, trusted.period_s, policy)


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


def _best(rows: Sequence[Row], policy: Policy) -> _Choice | None:
    """Find the lowest rank among the allowed candidates; the first in order where several are equal."""
    best: _Choice | None = None
    for row in rows:
        for position, refusal in enumerate(row.refusals):
            if refusal is None:
                rank = _rank(float(row.latency_s[position]), float(row.period_s[position]), policy)
                if best is None or rank < best.rank:
                    best = _Choice(row, position, rank)
    return best


def _draft_trusted(table: CandidateTable, trusted: Alternative) -> _Draft:
    reason = "No split that the policy allows is faster, so everything stays in the enclave."
    placement = Placement((0,) * len(table.flow.model.nodes), (ENCLAVE,), (reason,))
    return _Draft(
        cut_ids=(),
        placement=placement,
        values=compose_values(table.flow, placement, table.policy, verdict=None, audit_id=None),
        prediction=compose_prediction(table.trusted_terms, 0),
        reason=explain_plan(cut_ids=(), device=None, latency_s=trusted.latency_s, trusted_s=None),
    )


def _draft_split(table: CandidateTable, choice: _Choice, audit: Audit | None, trusted: Alternative) -> _Draft:
    flow, row = table.flow, choice.row
    end = row.ends[choice.position]
    verdict = table.verdicts[row.start]
    cut_ids = name_cuts(flow, row.start, end)
    private = any(name in flow.private for name in flow.crossing[row.start])
    reasons = explain_parts(
        first_cut=cut_ids[0],
        last_cut=cut_ids[1] if len(cut_ids) > 1 else None,
        device=row.device,
        leakage_upper=verdict.leakage_upper if private and verdict.refusal is None else None,
        policy=table.policy,
    )
    placement = place(flow, start=row.start, end=end, device=row.device, reasons=reasons)
    ends = np.asarray([end], dtype=np.intp)
    traffic = measure_traffic(flow, row.start, ends)
    terms = split_terms(traffic, table.compute(row.device), table.costs, start=row.start, ends=ends, device=row.device)
    prediction = compose_prediction(terms, 0)
    audit_id = audit.id if audit is not None else None
    return _Draft(
        cut_ids=cut_ids,
        placement=placement,
        values=compose_values(flow, placement, table.policy, verdict=verdict, audit_id=audit_id),
        prediction=prediction,
        reason=explain_plan(
            cut_ids=cut_ids, device=row.device, latency_s=prediction.latency_s, trusted_s=trusted.latency_s
        ),
    )
