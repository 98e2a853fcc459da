from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import helper
from planner_models import build, chain_model, make_audit, make_costs, make_policy, random_model

import siniantrust.planner
from siniantrust.errors import NoPlanError, PlanError
from siniantrust.graph import Model, enumerate_cuts
from siniantrust.leakage import Audit
from siniantrust.planner import ENCLAVE, LabelledValue, Plan, PlannedPart, Policy, find_violations, solve, validate_plan
from siniantrust.trust import Label

Tamper = Callable[[Plan, random.Random], Plan | None]


def _planned(seed: int, *, threat_model: str = "input-privacy", nodes: int = 9) -> tuple[Plan, Model, Audit] | None:
    model = random_model(seed, nodes=nodes)
    cuts = enumerate_cuts(model)
    audit = make_audit(model, cuts, dict.fromkeys((cut.id for cut in cuts.cuts), 0.1))
    policy = make_policy(("gpu", "npu"), threat_model=threat_model, objective={"allow_all_trusted": False})
    try:
        plan = solve(model, cuts, policy=policy, audit=audit, costs=make_costs(model, ("gpu", "npu"), seed=seed))
    except NoPlanError:
        return None
    return plan, model, audit


def _with_part(plan: Plan, index: int, **changes: object) -> Plan:
    parts = list(plan.parts)
    parts[index] = PlannedPart.model_validate(parts[index].model_dump() | changes)
    return plan.model_copy(update={"parts": tuple(parts)})


def _with_value(plan: Plan, index: int, **changes: object) -> Plan:
    values = list(plan.values)
    values[index] = LabelledValue.model_validate(values[index].model_dump() | changes)
    return plan.model_copy(update={"values": tuple(values)})


def _move_node(plan: Plan, source: random.Random) -> Plan:
    here, there = source.sample(range(len(plan.parts)), 2)
    node = source.choice(plan.parts[here].nodes)
    moved = _with_part(plan, here, nodes=tuple(name for name in plan.parts[here].nodes if name != node))
    return _with_part(moved, there, nodes=(*plan.parts[there].nodes, node))


def _repeat_node(plan: Plan, source: random.Random) -> Plan:
    here, there = source.sample(range(len(plan.parts)), 2)
    return _with_part(plan, there, nodes=(*plan.parts[there].nodes, source.choice(plan.parts[here].nodes)))


def _lose_node(plan: Plan, source: random.Random) -> Plan:
    here = source.randrange(len(plan.parts))
    return _with_part(plan, here, nodes=plan.parts[here].nodes[:-1])


def _drop_value(plan: Plan, source: random.Random) -> Plan:
    gone = source.randrange(len(plan.values))
    return plan.model_copy(update={"values": tuple(v for i, v in enumerate(plan.values) if i != gone)})


def _relabel(plan: Plan, source: random.Random) -> Plan:
    index = source.randrange(len(plan.values))
    others = [label for label in Label if label is not plan.values[index].label]
    return _with_value(plan, index, label=source.choice(others))


def _retarget(plan: Plan, source: random.Random) -> Plan:
    index = source.randrange(len(plan.values))
    return _with_value(plan, index, targets=source.choice([(), ("part9",), (*plan.values[index].targets, "client2")]))


def _change_source(plan: Plan, source: random.Random) -> Plan:
    index = source.randrange(len(plan.values))
    ends = {"client", "part1", "part2", "part3"} - {plan.values[index].source}
    return _with_value(plan, index, source=source.choice(sorted(ends)))


def _shrink_value(plan: Plan, source: random.Random) -> Plan:
    index = source.randrange(len(plan.values))
    return _with_value(plan, index, size_bytes=plan.values[index].size_bytes + 1)


def _change_evidence(plan: Plan, source: random.Random) -> Plan | None:
    obscured = [index for index, value in enumerate(plan.values) if value.label is Label.OBSCURED]
    if not obscured:
        return None
    change: dict[str, object] = source.choice(
        [{"audit_id": "b" * 64}, {"audit_id": None}, {"leakage_upper": {"ssim": 0.0}}]
    )
    return _with_value(plan, source.choice(obscured), **change)


def _change_audit(plan: Plan, source: random.Random) -> Plan:
    return plan.model_copy(update={"audit_id": source.choice([None, "c" * 64])})


def _swap_device(plan: Plan, source: random.Random) -> Plan:
    index = source.randrange(len(plan.parts))
    devices = [name for name in (ENCLAVE, "gpu", "npu", "nobody") if name != plan.parts[index].device]
    return _with_part(plan, index, device=source.choice(devices))


def _swap_device_and_trust(plan: Plan, source: random.Random) -> Plan:
    index = source.randrange(len(plan.parts))
    device = source.choice(["gpu", "npu"]) if plan.parts[index].trusted else ENCLAVE
    return _with_part(plan, index, device=device, trusted=not plan.parts[index].trusted)


def _change_interface(plan: Plan, source: random.Random) -> Plan:
    index = source.randrange(len(plan.parts))
    side = source.choice(["inputs", "outputs"])
    listed = tuple(getattr(plan.parts[index], side))
    return _with_part(plan, index, **{side: source.choice([listed[:-1], (*listed, "other"), (*listed, listed[0])])})


def _change_figures(plan: Plan, source: random.Random) -> Plan:
    field = source.choice(["flops", "parameter_bytes"])
    return _with_part(plan, 0, **{field: getattr(plan.parts[0], field) + 1})


def _change_model(plan: Plan, source: random.Random) -> Plan:
    return plan.model_copy(update={"model_sha256": source.randbytes(32).hex()})


def _change_cut(plan: Plan, source: random.Random) -> Plan:
    index = source.randrange(len(plan.cut_ids))
    return plan.model_copy(update={"cut_ids": tuple("c0" if i == index else c for i, c in enumerate(plan.cut_ids))})


def _change_latency(plan: Plan, source: random.Random) -> Plan:
    factor = source.choice([0.5, 2.0])
    changed = plan.prediction.model_copy(update={"latency_s": plan.prediction.latency_s * factor})
    return plan.model_copy(update={"prediction": changed})


_TAMPERS: list[Tamper] = [
    _move_node,
    _repeat_node,
    _lose_node,
    _drop_value,
    _relabel,
    _retarget,
    _change_source,
    _shrink_value,
    _change_evidence,
    _change_audit,
    _swap_device,
    _swap_device_and_trust,
    _change_interface,
    _change_figures,
    _change_model,
    _change_cut,
    _change_latency,
]


@pytest.mark.parametrize("tamper", _TAMPERS, ids=lambda tamper: tamper.__name__.lstrip("_"))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(seed=st.integers(0, 10**6), threat_model=st.sampled_from(["input-privacy", "output-privacy"]))
def test_any_change_of_a_valid_plan_is_caught(tamper: Tamper, seed: int, threat_model: str) -> None:
    """A plan that validates no longer does after one change anywhere that matters."""
    case = _planned(seed, threat_model=threat_model)
    assume(case is not None)
    assert case is not None
    plan, model, audit = case
    assert find_violations(plan, model, audit) == []
    changed = tamper(plan, random.Random(seed))
    assume(changed is not None)
    assert changed is not None
    assert changed != plan
    with pytest.raises(PlanError, match="invalid"):
        validate_plan(changed, model, audit)


def _chain_plan() -> tuple[Plan, Model, Audit]:
    model = chain_model(8)
    cuts = enumerate_cuts(model)
    audit = make_audit(model, cuts, dict.fromkeys((cut.id for cut in cuts.cuts), 0.1))
    plan = solve(model, cuts, policy=make_policy(), audit=audit, costs=make_costs(model))
    return plan, model, audit


def _with_policy(plan: Plan, **changes: object) -> Plan:
    policy = Policy.model_validate(plan.policy.model_dump() | changes)
    return plan.model_copy(update={"policy": policy, "threat_model": policy.threat_model})


def test_obscured_values_without_an_audit_are_refused() -> None:
    """A plan whose values are called obscured does not validate when no audit is at hand."""
    plan, model, _ = _chain_plan()
    assert any("was not audited" in line for line in find_violations(plan, model, None))


def test_an_audit_that_now_exceeds_the_bound_is_refused() -> None:
    """The validator reads the audit's figures itself and refuses a cut that leaks more than the policy allows."""
    plan, model, audit = _chain_plan()
    figures = {cut.cut_id: 0.1 for cut in audit.cuts} | {plan.cut_ids[0]: 0.5}
    worse = make_audit(model, enumerate_cuts(model), figures)
    assert any("ssim leaks up to 0.5, allowed 0.2" in line for line in find_violations(plan, model, worse))


def test_a_deeper_cut_that_leaks_more_is_refused() -> None:
    """A failing deeper cut shows that the chosen one leaks as much, so the plan is refused."""
    plan, model, audit = _chain_plan()
    figures = {cut.cut_id: 0.1 for cut in audit.cuts} | {audit.cuts[-1].cut_id: 0.9}
    worse = make_audit(model, enumerate_cuts(model), figures)
    assert any("deeper cut" in line for line in find_violations(plan, model, worse))


def test_attacks_that_did_not_converge_are_refused() -> None:
    """A plan on a cut whose attacks did not converge does not validate under a policy that asks for it."""
    plan, model, audit = _chain_plan()
    loose = make_audit(
        model,
        enumerate_cuts(model),
        {cut.cut_id: 0.1 for cut in audit.cuts},
        converged={cut.cut_id: False for cut in audit.cuts},
    )
    assert any("did not converge" in line for line in find_violations(plan, model, loose))


def test_a_policy_with_less_memory_is_refused() -> None:
    """The validator adds up the trusted parts' memory itself."""
    plan, model, audit = _chain_plan()
    small = _with_policy(plan, enclave={"memory_bytes": 64})
    assert any(line.startswith("memory:") for line in find_violations(small, model, audit))


def test_a_policy_that_protects_outputs_refuses_a_two_part_plan() -> None:
    """Under output privacy a device that makes the outputs breaks their label."""
    plan, model, audit = _chain_plan()
    strict = _with_policy(plan, threat_model="output-privacy")
    assert any("cleared for obscured, but 't7' is secret" in line for line in find_violations(strict, model, audit))


def test_a_device_with_less_clearance_is_refused() -> None:
    """A device that is cleared for public values only may not hold an obscured one."""
    plan, model, audit = _chain_plan()
    strict = _with_policy(plan, device=[{"name": "gpu", "clearance": "public"}])
    assert any("cleared for public" in line for line in find_violations(strict, model, audit))


def test_an_attack_on_another_input_is_no_evidence() -> None:
    """An audit that attacked another input says nothing of this one."""
    plan, model, audit = _chain_plan()
    other = audit.model_copy(update={"data": audit.data.model_copy(update={"input_name": "y"})})
    assert any("did not attack the secret input 'x'" in line for line in find_violations(plan, model, other))


def test_the_message_is_one_line_and_counts_what_it_leaves_out() -> None:
    """The error names the first violations and how many follow."""
    plan, model, audit = _chain_plan()
    parts = tuple(part.model_copy(update={"flops": -1, "parameter_bytes": -1}) for part in plan.parts)
    with pytest.raises(PlanError, match=r"and 1 more; plan again$") as caught:
        validate_plan(plan.model_copy(update={"parts": parts}), model, audit)
    assert "\n" not in str(caught.value)


def test_validator_shares_no_code_with_the_solver() -> None:
    """No module of the validator imports a module of the solver, nor the other way round."""
    shared = {"_plan", "_policy"}
    for module in Path(siniantrust.planner.__path__[0]).glob("_validate*.py"):
        lines = [line for line in module.read_text().splitlines() if line.startswith("from siniantrust.planner.")]
        names = {line.split()[1].rsplit(".", 1)[1] for line in lines}
        assert all(name in shared or name.startswith("_validate") for name in names), module


def test_an_empty_model_of_one_node_can_stay_in_the_enclave() -> None:
    """The smallest model has no cut, and its plan of one part validates."""
    model = build([helper.make_node("Relu", ["x"], ["y"], name="only")], inputs=["x"], outputs=["y"])
    plan = solve(model, enumerate_cuts(model), policy=make_policy(), audit=None, costs=make_costs(model))
    assert [part.device for part in plan.parts] == [ENCLAVE]
    assert find_violations(plan, model, None) == []
