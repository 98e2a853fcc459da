"""What the audit says of each cut under the policy: may what crosses there be called obscured?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from siniantrust.errors import AuditError
from siniantrust.leakage import Audit, CutAudit
from siniantrust.planner._attention import find_attention
from siniantrust.planner._flow import Flow, bits
from siniantrust.planner._policy import Policy

_COUNTED = ("reidentification", "attribute", "token")
TOKEN_ATTACK_PREFIX = "token"  # noqa: S105 - names of attacks start with it, no password


@dataclass(frozen=True, slots=True)
class Verdict:
    """``refusal`` says why the private tensors of a cut are not obscured enough; None when they are.

    ``leakage_upper`` is what the audit measured at the cut, per metric; None where it measured nothing.
    """

    leakage_upper: dict[str, float] | None
    refusal: str | None


def judge_cuts(flow: Flow, policy: Policy, audit: Audit | None) -> tuple[Verdict, ...]:
    """Judge every cut of ``flow``, by index.

    A cut passes when its audited upper bounds are within the policy and no deeper audited cut is beyond it: what a
    deeper cut shows was computed from the shallower one, so it leaks no more (data-processing inequality; Cover and
    Thomas, "Elements of Information Theory", theorem 2.8.1), and a better attack there proves the shallower weak.

    Raises:
        AuditError: if the audit belongs to another model.
    """
    if audit is None:
        return (Verdict(None, "not audited: no audit was given; run `sinian audit`"),) * len(flow.ids)
    if audit.model_sha256 != flow.model.sha256:
        raise AuditError(
            f"audit {audit.id}: made for model {audit.model_sha256[:12]}, but the model is {flow.model.sha256[:12]}; "
            "run `sinian audit` on this model"
        )
    attention = find_attention(flow.model)
    measured = {cut.cut_id: cut for cut in audit.cuts}
    excess = [_excess(measured[cut_id], policy) if cut_id in measured else None for cut_id in flow.ids]
    failing = sum(1 << index for index, reason in enumerate(excess) if reason is not None)
    verdicts = []
    for index, cut_id in enumerate(flow.ids):
        cut = measured.get(cut_id)
        if cut is None:
            why = audit.skipped.get(cut_id, "the audit does not cover this cut")
            verdicts.append(Verdict(None, f"not audited: {why}"))
            continue
        refusal = (
            _uncovered(flow, index, cut, audit)
            or _attention_refusal(attention, cut)
            or (f"{excess[index]}{_too_few(cut, audit, policy)}" if excess[index] else None)
            or _deeper_excess(flow, index, excess, failing)
            or _shortfall(cut, policy)
        )
        upper = {metric: estimate.upper for metric, estimate in sorted(cut.leakage.items())}
        verdicts.append(Verdict(upper, refusal))
    return tuple(verdicts)


def _uncovered(flow: Flow, index: int, cut: CutAudit, audit: Audit) -> str | None:
    missing = [name for name in flow.crossing[index] if name in flow.private and name not in cut.tensors]
    if missing:
        return f"not audited: '{missing[0]}' crosses here too, but the audit did not attack it"
    for tensor in flow.model.inputs:
        attacked = tensor.name == audit.data.input_name
        if tensor.name in flow.private and not attacked and flow.read_in(tensor.name) >> index & 1:
            return f"not audited: input '{tensor.name}' is secret, but only '{audit.data.input_name}' was attacked"
    return None


def _attention_refusal(attention: str | None, cut: CutAudit) -> str | None:
    if attention is None or any(name.startswith(TOKEN_ATTACK_PREFIX) for name in cut.attacks):
        return None
    return (
        f"the model contains attention ('{attention}'): published prompt inversion recovers most tokens at any depth, "
        "so no plain-text cut is offered without an attack on tokens; use an exact mask or the enclave"
    )


def _shortfall(cut: CutAudit, policy: Policy) -> str | None:
    absent = sorted(set(policy.leakage.max) - set(cut.leakage))
    if absent:
        return f"leakage in {absent[0]} was not measured, but the policy bounds it; measured: {sorted(cut.leakage)}"
    if cut.doubt is not None:
        return f"not measured: {cut.doubt}"
    if policy.leakage.require_converged and not cut.settled_in(policy.leakage.max):
        budget = ", ".join(f"{limit} {value}" for limit, value in cut.next_budget.items())
        moving = [metric for metric in policy.leakage.max if metric in cut.unsettled]
        return (
            f"not converged{f' in {moving[0]}' if moving else ''}: an attacker with a larger budget could still improve"
            + (f"; try {budget}" if budget else "")
        )
    return None


def _excess(cut: CutAudit, policy: Policy) -> str | None:
    """Say which metric leaks beyond the policy's bound, the furthest beyond first."""
    over = [
        (cut.leakage[metric].upper - bound, metric, cut.leakage[metric].upper, bound)
        for metric, bound in policy.leakage.max.items()
        if metric in cut.leakage and cut.leakage[metric].upper > bound
    ]
    if not over:
        return None
    _, metric, upper, bound = max(over)
    return (
        f"leaks too much: {metric} up to {upper:.3g} by {cut.best_attack.get(metric, 'an attack')}, allowed {bound:g}"
    )


def _too_few(cut: CutAudit, audit: Audit, policy: Policy) -> str:
    """Say how many held-out items a bound on hits needs, if there are too few; empty if there are enough.

    Without a hit among n, the exact one-sided 95 % bound of the rate is 1 - 0.05 ** (1 / n) (Clopper, Pearson 1934).
    """
    for metric, bound in policy.leakage.max.items():
        if metric in _COUNTED and metric in cut.leakage and 0 < bound < 1:
            items = audit.data.heldout_count
            least = 1 - 0.05 ** (1 / items)
            if least > bound:
                needed = math.ceil(math.log(0.05) / math.log(1 - bound))
                return f"; {items} held-out items cannot show less than {least:.2g} in {metric}, {needed} could"
    return ""


def _deeper_excess(flow: Flow, index: int, excess: Sequence[str | None], failing: int) -> str | None:
    deeper = next(bits(flow.contained_in[index] & failing), None)
    if deeper is None:
        return None
    return f"a deeper cut, '{flow.ids[deeper]}', {excess[deeper]}; so this one leaks at least as much"
