"""The independent validator: recomputes from the model's graph what a plan claims, and trusts none of it.

It shares no code with the solver: its reachability, labels, memory and rule for attention are its own, so that an error
in one of the two shows. Checks run at build and again at load.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator

from siniantrust.errors import PlanError
from siniantrust.graph import Model
from siniantrust.leakage import Audit
from siniantrust.planner._plan import ENCLAVE, Plan, PlannedPart
from siniantrust.planner._validate_labels import label_violations
from siniantrust.planner._validate_memory import memory_violations
from siniantrust.planner._validate_padding import padding_violations
from siniantrust.planner._validate_values import value_violations

_TOLERANCE = 1e-9
_SHOWN = 3


def validate_plan(plan: Plan, model: Model, audit: Audit | None) -> None:
    """Raise unless ``plan`` is a valid placement of ``model`` under the policy that it carries.

    Raises:
        PlanError: if anything is wrong; the message counts the violations and names the first ones.
    """
    found = find_violations(plan, model, audit)
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise PlanError(f"plan of '{plan.model_name}': invalid: {'; '.join(found[:_SHOWN])}{more}; plan again")


def find_violations(plan: Plan, model: Model, audit: Audit | None) -> list[str]:
    """Return everything that is wrong with ``plan``, one readable line each; empty when it is valid."""
    found = [*_header_violations(plan, model, audit), *_part_violations(plan, model)]
    if found:
        return found
    where = {name: number for number, part in enumerate(plan.parts) for name in part.nodes}
    part_of = [where[node.name] for node in model.nodes]
    found += value_violations(plan, model, part_of)
    found += label_violations(plan, model, audit, part_of)
    found += padding_violations(plan, model)
    found += memory_violations(plan, model)
    found += _prediction_violations(plan)
    return found


def _header_violations(plan: Plan, model: Model, audit: Audit | None) -> Iterator[str]:
    if plan.model_sha256 != model.sha256:
        yield f"model: the plan is for {plan.model_sha256[:12]}, the model is {model.sha256[:12]}"
    if plan.threat_model != plan.policy.threat_model:
        yield f"threat model: the plan says {plan.threat_model.value}, its policy {plan.policy.threat_model.value}"
    if audit is not None and audit.model_sha256 != model.sha256:
        yield f"audit: it is of model {audit.model_sha256[:12]}, the model is {model.sha256[:12]}"
    if audit is not None and audit.id != plan.audit_id:
        yield f"audit: the plan was made with {plan.audit_id}, the audit is {audit.id}"
    known = {tensor.name for tensor in model.inputs}
    for name in plan.policy.public_inputs:
        if name not in known:
            yield f"policy: the model has no input '{name}' that could be public"


def _part_violations(plan: Plan, model: Model) -> Iterator[str]:
    trusted = tuple(part.trusted for part in plan.parts)
    kinds = [kind for kind, _ in itertools.groupby(trusted)]
    if kinds not in ([True], [True, False], [True, False, True]) or sum(trusted) != kinds.count(True):
        yield f"parts: expected one trusted, then untrusted, then one trusted (or fewer), found {list(trusted)}"
    if len(plan.cut_ids) != max(len(plan.parts) - 1, 0):
        yield f"cuts: {len(plan.parts)} parts need {max(len(plan.parts) - 1, 0)} cuts, found {len(plan.cut_ids)}"
    expected = [f"part{number}" for number in range(1, len(plan.parts) + 1)]
    if [part.name for part in plan.parts] != expected:
        yield f"parts: expected the names {expected}, found {[part.name for part in plan.parts]}"
    devices = {device.name for device in plan.policy.device}
    for part in plan.parts:
        if part.trusted != (part.device == ENCLAVE):
            yield f"{part.name}: it is on '{part.device}' and says trusted = {str(part.trusted).lower()}"
        for name in (part.device, *part.replicas):
            if name != ENCLAVE and name not in devices:
                yield f"{part.name}: the policy has no device '{name}'"
        if part.trusted and part.replicas:
            yield f"{part.name}: it is trusted, and there is one enclave; the plan lists replicas on {part.replicas}"
        if not part.nodes and model.nodes:
            yield f"{part.name}: it has no nodes"
    yield from _sharing_violations(plan)
    yield from _membership_violations(plan, model)


def _sharing_violations(plan: Plan) -> Iterator[str]:
    """Yield the untrusted devices that are listed twice: memory and periods are planned for one part on each."""
    untrusted = [part for part in plan.parts if not part.trusted]
    for name, count in Counter(name for part in untrusted for name in (part.device, *part.replicas)).items():
        if name == ENCLAVE:
            yield "parts: the enclave is listed among the devices of an untrusted part"
        elif count > 1:
            yield f"parts: device '{name}' is listed {count} times; each part and replica needs a device of its own"


def _membership_violations(plan: Plan, model: Model) -> Iterator[str]:
    counts = Counter(name for part in plan.parts for name in part.nodes)
    own = {node.name for node in model.nodes}
    for name in sorted(counts.keys() - own)[:1]:
        yield f"parts: the model has no node '{name}'"
    for name in sorted(own - counts.keys())[:1]:
        yield f"parts: node '{name}' is in no part"
    for name in sorted(name for name, count in counts.items() if count > 1)[:1]:
        yield f"parts: node '{name}' is listed {counts[name]} times"
    for part in plan.parts:
        yield from _figure_violations(part, model)


def _figure_violations(part: PlannedPart, model: Model) -> Iterator[str]:
    inside = set(part.nodes)
    nodes = [node for node in model.nodes if node.name in inside]
    if part.flops != sum(node.flops for node in nodes):
        yield f"{part.name}: its nodes cost {sum(node.flops for node in nodes)} FLOPs, the plan says {part.flops}"
    if part.parameter_bytes != sum(node.parameter_bytes for node in nodes):
        yield f"{part.name}: the plan says {part.parameter_bytes} parameter bytes, which is not its nodes' sum"


def _prediction_violations(plan: Plan) -> Iterator[str]:
    prediction = plan.prediction
    total = sum(term.latency_s for term in prediction.terms)
    if not math.isclose(total, prediction.latency_s, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
        yield f"prediction: the terms sum to {total:g} s, the plan says {prediction.latency_s:g} s"
    if prediction.period_s > prediction.latency_s * (1 + _TOLERANCE):
        yield "prediction: the period is longer than the latency"
    padded = plan.masking.devices[:1] if plan.masking is not None else ()
    used = {part.device for part in plan.parts} | set(padded)
    named = {term.where for term in prediction.terms}
    replicas = {name for part in plan.parts for name in part.replicas}
    if not used <= named <= used | replicas:
        yield f"prediction: its terms are for {sorted(named)}, the parts run on {sorted(used)}"
    layers = len(plan.masking.layers) if plan.masking is not None else 0
    chosen = (plan.cut_ids, plan.devices, layers)
    same = [each for each in plan.alternatives if (each.cut_ids, each.device, each.padded_layers) == chosen]
    if len(same) != 1:
        yield f"alternatives: the chosen placement should be among them once, found {len(same)} times"
    elif same[0].refusal is not None:
        yield f"alternatives: the chosen placement was refused: {same[0].refusal}"
    elif not math.isclose(same[0].latency_s, prediction.latency_s, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
        yield "alternatives: the chosen placement has another latency there than in the prediction"
