"""Validator: may each device see and make what it does, and is everything that is called obscured proven so?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from siniantrust.graph import Model
from siniantrust.leakage import Audit, CutAudit
from siniantrust.planner._plan import ENCLAVE, LabelledValue, Plan
from siniantrust.planner._validate_clearance import clearance_violation
from siniantrust.trust import Label, ThreatModel

_ATTENTION_OPERATORS = frozenset(
    (
        *("Attention", "MultiHeadAttention", "GroupQueryAttention", "PackedAttention", "PackedMultiHeadAttention"),
        *("DecoderMaskedMultiHeadAttention", "QAttention", "LongformerAttention"),
    )
)
_MATRIX_PRODUCTS = frozenset(("MatMul", "Gemm", "Einsum", "MatMulInteger", "FusedMatMul"))
_PASSED_THROUGH = frozenset(
    (
        *("Add", "Cast", "Clip", "Div", "Dropout", "Expand", "Identity", "IsNaN", "Mul", "Reshape", "Slice", "Softcap"),
        *("Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze", "Where"),
    )
)


def label_violations(plan: Plan, model: Model, audit: Audit | None, part_of: Sequence[int]) -> Iterator[str]:
    """Yield every wrong label, missing or false evidence, and clearance that does not suffice."""
    secrets = _secret_sources(plan, model)
    seen = _seen_private(plan, model, secrets, part_of)
    doubts = list(_evidence_doubts(plan, model, audit, seen, secrets)) if seen else []
    obscured = bool(seen) and not doubts
    clearance = {device.name: device.clearance for device in plan.policy.device}
    home = {name: part_of[index] for index, node in enumerate(model.nodes) for name in node.outputs}
    devices_of = {part.name: {part.device, *part.replicas} for part in plan.parts}
    outputs = {tensor.name for tensor in model.outputs}
    for value in plan.values:
        ends = (devices_of.get(end, set()) for end in (value.source, *value.targets))
        devices = set().union(*ends) - {ENCLAVE}
        if value.tensor in outputs and plan.threat_model is ThreatModel.OUTPUT_PRIVACY:
            expected = Label.SECRET
        elif not secrets.get(value.tensor):
            expected = Label.PUBLIC
        elif value.tensor in home and devices and obscured:
            expected = Label.OBSCURED
        else:
            expected = Label.SECRET
        if value.label is not expected:
            yield f"labels: '{value.tensor}' is {expected.value}, the plan says {value.label.value}"
        for device in sorted(devices):
            why = doubts[0] if doubts and expected is Label.SECRET else ""
            wrong = clearance_violation(device, clearance[device], value.tensor, expected, why=why)
            if wrong is not None:
                yield f"labels: {wrong}"
        yield from _claim_violations(value, plan, audit, obscured=expected is Label.OBSCURED)


def _secret_sources(plan: Plan, model: Model) -> Mapping[str, frozenset[str]]:
    """Return, per tensor, the secret inputs that it depends on."""
    public = set(plan.policy.public_inputs)
    found = {tensor.name: frozenset({tensor.name} - public) for tensor in model.inputs}
    for node in model.nodes:
        merged = frozenset().union(*(found.get(name, frozenset()) for name in node.inputs))
        found.update(dict.fromkeys(node.outputs, merged))
    return found


def _seen_private(plan: Plan, model: Model, secrets: Mapping[str, frozenset[str]], part_of: Sequence[int]) -> set[str]:
    """Return the private values that a trusted part makes and an untrusted one reads."""
    home = {name: part_of[index] for index, node in enumerate(model.nodes) for name in node.outputs}
    return {
        name
        for index, node in enumerate(model.nodes)
        if not plan.parts[part_of[index]].trusted
        for name in node.inputs
        if name in home and plan.parts[home[name]].trusted and secrets[name]
    }


def _evidence_doubts(
    plan: Plan, model: Model, audit: Audit | None, seen: set[str], secrets: Mapping[str, frozenset[str]]
) -> Iterator[str]:
    """Yield the reasons why the values that leave cannot be called obscured."""
    cut = audit.by_cut(plan.cut_ids[0]) if audit is not None else None
    if audit is None or cut is None:
        yield f"cut '{plan.cut_ids[0]}' was not audited"
        return
    for name in sorted(seen - set(cut.tensors)):
        yield f"'{name}' leaves the enclave, but the audit of '{cut.cut_id}' did not attack it"
    for name in sorted(_exposed_inputs(plan, model)):
        yield f"the secret input '{name}' leaves as it is"
    behind: set[str] = set().union(*(secrets[name] for name in seen))
    for name in sorted(behind - {audit.data.input_name}):
        yield f"the audit did not attack the secret input '{name}'"
    if _has_attention(model) and not any(name.startswith("token") for name in cut.attacks):
        yield "the model contains attention, and no attack on tokens was made"
    yield from _figure_doubts(plan, cut)
    yield from _bound_doubts(plan, cut)
    before = set(plan.parts[0].nodes)
    for other in audit.cuts:
        if other.cut_id != cut.cut_id and before <= _nodes_behind(model, other.tensors):
            for doubt in _bound_doubts(plan, other, complete=False):
                yield f"at the deeper cut '{other.cut_id}' {doubt}"


def _figure_doubts(plan: Plan, cut: CutAudit) -> Iterator[str]:
    if cut.doubt is not None:
        yield cut.doubt
    if plan.policy.leakage.require_converged and not cut.settled_in(plan.policy.leakage.max):
        yield f"the attacks at '{cut.cut_id}' did not converge"


def _exposed_inputs(plan: Plan, model: Model) -> set[str]:
    outside = {name for part in plan.parts if not part.trusted for name in part.nodes}
    inputs = {tensor.name for tensor in model.inputs} - set(plan.policy.public_inputs)
    return inputs & {name for node in model.nodes if node.name in outside for name in node.inputs}


def _bound_doubts(plan: Plan, cut: CutAudit, *, complete: bool = True) -> Iterator[str]:
    for metric, bound in plan.policy.leakage.max.items():
        estimate = cut.leakage.get(metric)
        if estimate is None:
            if complete:
                yield f"{metric} was not measured at '{cut.cut_id}'"
        elif not estimate.upper <= bound:
            yield f"{metric} leaks up to {estimate.upper:.3g}, allowed {bound:g}"


def _nodes_behind(model: Model, tensors: Sequence[str]) -> set[str]:
    """Return the names of all nodes that ``tensors`` depend on, by one sweep from the last node to the first."""
    wanted = set(tensors)
    found: set[str] = set()
    for node in reversed(model.nodes):
        if not wanted.isdisjoint(node.outputs):
            found.add(node.name)
            wanted.update(node.inputs)
    return found


def _claim_violations(value: LabelledValue, plan: Plan, audit: Audit | None, *, obscured: bool) -> Iterator[str]:
    """Compare what the plan says a value leaks with the audit."""
    if not obscured or audit is None:
        if value.audit_id is not None or value.leakage_upper is not None:
            yield f"evidence: '{value.tensor}' is not obscured, but names an audit"
        return
    if value.audit_id != audit.id:
        yield f"evidence: '{value.tensor}' names the audit {value.audit_id}, expected {audit.id}"
    cut = audit.by_cut(plan.cut_ids[0])
    measured = {metric: estimate.upper for metric, estimate in cut.leakage.items()} if cut is not None else None
    if value.leakage_upper != measured:
        yield f"evidence: '{value.tensor}' states another leakage than the audit of '{plan.cut_ids[0]}'"


def _has_attention(model: Model) -> bool:
    """Say whether a product's result reaches a Softmax whose result reaches a product, in one forward sweep."""
    scores: set[str] = set()
    weights: set[str] = set()
    for node in model.nodes:
        scored = not scores.isdisjoint(node.inputs)
        weighted = not weights.isdisjoint(node.inputs)
        product = node.op_type in _MATRIX_PRODUCTS
        if node.op_type in _ATTENTION_OPERATORS or (product and weighted):
            return True
        passed = node.op_type in _PASSED_THROUGH
        if product or (passed and scored):
            scores.update(node.outputs)
        if (node.op_type == "Softmax" and scored) or (passed and weighted):
            weights.update(node.outputs)
    return False
