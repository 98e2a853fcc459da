from __future__ import annotations

import pytest
from onnx import helper
from planner_models import build, chain_model, make_audit, make_costs, make_policy

from siniantrust.errors import AuditError, NoPlanError, PlanError, PolicyError
from siniantrust.graph import CutSet, Model, enumerate_cuts
from siniantrust.leakage import Audit
from siniantrust.planner import ENCLAVE, ComputeCost, _alternatives, find_violations, solve
from siniantrust.trust import Label

_NO_FALLBACK = {"allow_all_trusted": False}


@pytest.fixture(scope="module")
def chain() -> tuple[Model, CutSet]:
    """A chain of twelve nodes and its cuts."""
    model = chain_model(12)
    return model, enumerate_cuts(model)


def _falling(chain: tuple[Model, CutSet], *, start: float = 0.5, step: float = 0.1) -> Audit:
    """Audit every cut, with leakage that falls with depth."""
    model, cuts = chain
    return make_audit(model, cuts, {cut.id: max(start - step * i, 0.0) for i, cut in enumerate(cuts.cuts)})


def _refusal(chain: tuple[Model, CutSet], cut: int, **arguments: object) -> str:
    model, cuts = chain
    policy = arguments.pop("policy", make_policy())
    plan = solve(model, cuts, policy=policy, costs=make_costs(model), **arguments)  # type: ignore[arg-type]
    found = [each.refusal for each in plan.alternatives if each.cut_ids == (cuts.cuts[cut].id,)]
    assert found[0] is not None
    return found[0]


def test_the_earliest_cut_within_the_bound_is_chosen_when_the_device_is_faster(chain: tuple[Model, CutSet]) -> None:
    """With leakage that falls with depth and a faster device, the first cut within the bound wins."""
    model, cuts = chain
    plan = solve(model, cuts, policy=make_policy(), audit=_falling(chain), costs=make_costs(model))
    assert plan.cut_ids == (cuts.cuts[3].id,)
    assert [part.device for part in plan.parts] == [ENCLAVE, "gpu"]


def test_every_cut_is_listed_with_its_refusal_or_none(chain: tuple[Model, CutSet]) -> None:
    """The alternatives hold the whole model in the enclave and every cut, allowed or not."""
    model, cuts = chain
    plan = solve(model, cuts, policy=make_policy(), audit=_falling(chain), costs=make_costs(model))
    assert [each.cut_ids for each in plan.alternatives] == [(), *((cut.id,) for cut in cuts.cuts)]
    assert [each.refusal is None for each in plan.alternatives] == [True, False, False, False, *[True] * 8]


def test_without_an_audit_only_the_enclave_remains(chain: tuple[Model, CutSet]) -> None:
    """No audit, no cut: each is refused as not audited, and the whole model stays in the enclave."""
    model, cuts = chain
    plan = solve(model, cuts, policy=make_policy(), audit=None, costs=make_costs(model))
    assert [part.device for part in plan.parts] == [ENCLAVE]
    assert all((each.refusal or "").startswith("not audited") for each in plan.alternatives[1:])


def test_no_plan_says_for_each_cut_why_it_was_refused(chain: tuple[Model, CutSet]) -> None:
    """When the policy allows nothing, the error holds one line per cut and one for the whole model."""
    model, cuts = chain
    policy = make_policy(objective=_NO_FALLBACK, leakage={"max": {"ssim": 0.0}})
    audit = _falling(chain, start=1.5)
    with pytest.raises(NoPlanError) as caught:
        solve(model, cuts, policy=policy, audit=audit, costs=make_costs(model))
    assert len(caught.value.refusals) == len(cuts.cuts) + 1
    assert all(cut.id in line for cut, line in zip(cuts.cuts, caught.value.refusals, strict=False))
    assert "\n" not in str(caught.value)


def test_a_cut_that_the_audit_left_out_is_refused_with_the_audits_reason(chain: tuple[Model, CutSet]) -> None:
    """A skipped cut carries the reason for which the audit skipped it."""
    model, cuts = chain
    audit = make_audit(model, cuts, {cuts.cuts[5].id: 0.1})
    audit = audit.model_copy(update={"skipped": {cuts.cuts[0].id: "fusable"}})
    assert _refusal(chain, 0, audit=audit) == "not audited: fusable"
    assert _refusal(chain, 1, audit=audit) == "not audited: the audit does not cover this cut"


def test_a_cut_is_refused_when_a_deeper_one_leaks_more(chain: tuple[Model, CutSet]) -> None:
    """What a deeper cut shows was computed from the shallower one, so the shallower leaks at least as much."""
    model, cuts = chain
    figures = dict.fromkeys((cut.id for cut in cuts.cuts), 0.1) | {cuts.cuts[4].id: 0.9}
    refusal = _refusal(chain, 2, audit=make_audit(model, cuts, figures))
    assert refusal.startswith(f"a deeper cut, '{cuts.cuts[4].id}', leaks too much")


def test_attacks_that_did_not_converge_refuse_a_cut_unless_the_policy_lets_them(chain: tuple[Model, CutSet]) -> None:
    """Not converged is never safe, unless the policy says so; then the plan warns."""
    model, cuts = chain
    figures = dict.fromkeys((cut.id for cut in cuts.cuts), 0.1)
    audit = make_audit(model, cuts, figures, converged={cuts.cuts[0].id: False})
    assert _refusal(chain, 0, audit=audit).startswith("not converged")
    lenient = make_policy(leakage={"require_converged": False})
    plan = solve(model, cuts, policy=lenient, audit=audit, costs=make_costs(model))
    assert plan.cut_ids == (cuts.cuts[0].id,)
    assert any("did not converge" in warning for warning in plan.warnings)


@pytest.mark.parametrize("metric", ["nmse", "attribute", "character", "word"])
def test_a_metric_that_was_not_measured_refuses_a_cut(chain: tuple[Model, CutSet], metric: str) -> None:
    """A bound on a metric that the audit lacks, as where the data have no transcript, cannot be met."""
    refusal = _refusal(chain, 8, audit=_falling(chain), policy=make_policy(leakage={"max": {metric: 0.9}}))
    assert refusal.startswith(f"leakage in {metric} was not measured")


def test_too_little_enclave_memory_refuses_deep_cuts_and_the_whole_model(chain: tuple[Model, CutSet]) -> None:
    """Trusted parts that do not fit are refused with the bytes that they need."""
    model, cuts = chain
    policy = make_policy(enclave={"memory_bytes": 600, "accept": ["simulated"]})
    plan = solve(model, cuts, policy=policy, audit=_falling(chain), costs=make_costs(model))
    assert plan.alternatives[0].refusal == "the whole model needs 832 bytes, but the enclave has 600"
    refusals = {each.cut_ids: each.refusal for each in plan.alternatives[1:]}
    assert refusals[cuts.cuts[3].id,] is None
    assert "but the enclave has 600" in (refusals[cuts.cuts[-1].id,] or "")


def test_what_the_enclave_cannot_run_is_refused_by_name(chain: tuple[Model, CutSet]) -> None:
    """A cut with such a node in the enclave is refused with the node's name and why; earlier cuts are not."""
    model, cuts = chain
    costs = make_costs(model)
    costs = costs.model_copy(
        update={"trusted": costs.trusted.model_copy(update={"unsupported": {"n4": "no MatMul", "n6": "no Sigmoid"}})}
    )
    plan = solve(model, cuts, policy=make_policy(), audit=_falling(chain, start=0.1), costs=costs)
    refusals = {each.cut_ids: each.refusal for each in plan.alternatives}
    assert refusals[()] == "the enclave cannot run 2 of these nodes, such as 'n4': no MatMul"
    assert refusals[cuts.cuts[3].id,] is None
    assert refusals[cuts.cuts[4].id,] == "the enclave cannot run 1 of these nodes, such as 'n4': no MatMul"
    hidden = make_policy(threat_model="output-privacy")
    with pytest.raises(NoPlanError, match="cannot run 2 of these nodes"):
        solve(model, cuts, policy=hidden, audit=None, costs=costs)


def test_what_the_enclave_cannot_run_is_named_in_long_models_too() -> None:
    """With more cuts than a machine word has bits, a node that the enclave cannot run is still found and named."""
    model = chain_model(100)
    costs = make_costs(model)
    first, last = model.nodes[0].name, model.nodes[-1].name
    lacking = {first: "no kernel", last: "no kernel"}
    costs = costs.model_copy(update={"trusted": costs.trusted.model_copy(update={"unsupported": lacking})})
    with pytest.raises(NoPlanError, match=f"cannot run 2 of these nodes, such as '{first}': no kernel"):
        solve(model, enumerate_cuts(model), policy=make_policy(), audit=None, costs=costs)


def test_public_inputs_demand_no_audit(chain: tuple[Model, CutSet]) -> None:
    """When every input is public, every cut is allowed without an audit, its values are public, and the plan warns."""
    model, cuts = chain
    plan = solve(model, cuts, policy=make_policy(public_inputs=["x"]), audit=None, costs=make_costs(model))
    assert plan.cut_ids == (cuts.cuts[0].id,)
    assert {value.label for value in plan.values} == {Label.PUBLIC}
    assert "All inputs are declared public, so no leakage was demanded." in plan.warnings
    assert find_violations(plan, model, None) == []


def test_an_unknown_public_input_is_refused(chain: tuple[Model, CutSet]) -> None:
    """A misspelt public input is an error, not a silent secret."""
    model, cuts = chain
    with pytest.raises(PolicyError, match="no input 'X'; it has \\['x'\\]"):
        solve(model, cuts, policy=make_policy(public_inputs=["X"]), audit=None, costs=make_costs(model))


def test_an_audit_of_another_model_is_refused(chain: tuple[Model, CutSet]) -> None:
    """An audit counts only for the model that it was made of."""
    model, cuts = chain
    other = _falling(chain).model_copy(update={"model_sha256": "f" * 64})
    with pytest.raises(AuditError, match="made for model ffffffffffff"):
        solve(model, cuts, policy=make_policy(), audit=other, costs=make_costs(model))


def test_costs_of_another_model_or_without_a_device_are_refused(chain: tuple[Model, CutSet]) -> None:
    """Costs have to be of this model and know every device of the policy."""
    model, cuts = chain
    foreign = make_costs(model).model_copy(update={"model_sha256": "f" * 64})
    with pytest.raises(PlanError, match="measured for model ffffffffffff"):
        solve(model, cuts, policy=make_policy(), audit=None, costs=foreign)
    with pytest.raises(PlanError, match="nothing is known of device 'npu'"):
        solve(model, cuts, policy=make_policy(("npu",)), audit=None, costs=make_costs(model))


def test_output_privacy_brings_the_outputs_back_and_warns(chain: tuple[Model, CutSet]) -> None:
    """Under output privacy the last part is trusted, the outputs are secret, and the limits are said."""
    model, cuts = chain
    policy = make_policy(threat_model="output-privacy")
    plan = solve(model, cuts, policy=policy, audit=_falling(chain), costs=make_costs(model))
    assert [part.trusted for part in plan.parts] == [True, False, True]
    assert plan.cut_ids == (cuts.cuts[3].id, cuts.cuts[-1].id)
    labels = {value.tensor: value.label for value in plan.values}
    assert labels["t11"] is Label.SECRET
    assert labels[cuts.cuts[-1].tensors[0]] is Label.OBSCURED
    assert any("surrogate of part 3" in warning and "not audited" in warning for warning in plan.warnings)


def test_a_device_cleared_for_public_values_gets_no_obscured_one(chain: tuple[Model, CutSet]) -> None:
    """Clearance is a hard constraint, whatever the audit says."""
    policy = make_policy(device=[{"name": "gpu", "clearance": "public"}])
    refusal = _refusal(chain, 8, audit=_falling(chain), policy=policy)
    assert refusal == "'gpu' is cleared for public values, not obscured ones"


def test_a_device_cleared_for_secrets_needs_no_audit(chain: tuple[Model, CutSet]) -> None:
    """An owner may trust a device outright; then the values stay labelled secret, and the plan warns."""
    model, cuts = chain
    policy = make_policy(device=[{"name": "gpu", "clearance": "secret"}])
    plan = solve(model, cuts, policy=policy, audit=None, costs=make_costs(model))
    assert {value.label for value in plan.values} == {Label.SECRET}
    assert any("clears gpu for secret values" in warning for warning in plan.warnings)
    assert find_violations(plan, model, None) == []


def test_nodes_that_a_device_cannot_run_stay_in_the_enclave(chain: tuple[Model, CutSet]) -> None:
    """A cut is refused as long as an unsupported node is behind it."""
    model, cuts = chain
    costs = make_costs(model)
    slow = ComputeCost(latency_s=costs.devices["gpu"].latency_s, unsupported={"n6": "no kernel"}, basis="made up")
    audit = make_audit(model, cuts, dict.fromkeys((cut.id for cut in cuts.cuts), 0.1))
    plan = solve(
        model, cuts, policy=make_policy(), audit=audit, costs=costs.model_copy(update={"devices": {"gpu": slow}})
    )
    assert plan.cut_ids == (cuts.cuts[6].id,)
    assert plan.alternatives[1].refusal == "'gpu' cannot run 1 of the model's nodes, such as 'n6': no kernel"


def test_a_tie_goes_to_the_enclave_and_then_to_the_first_device(chain: tuple[Model, CutSet]) -> None:
    """Equal costs are settled by order, so that planning twice gives the same plan."""
    model, cuts = chain
    costs = make_costs(model, ("npu", "gpu"))
    audit = _falling(chain)
    plan = solve(model, cuts, policy=make_policy(("npu", "gpu")), audit=audit, costs=costs)
    assert plan.parts[1].device == "npu"
    again = solve(model, cuts, policy=make_policy(("npu", "gpu")), audit=audit, costs=costs)
    assert plan == again


def test_minimising_the_period_balances_the_stages(chain: tuple[Model, CutSet]) -> None:
    """With equal speeds, the best period puts half of the work on either side."""
    model, cuts = chain
    costs = make_costs(model)
    equal = costs.model_copy(update={"devices": {"gpu": costs.trusted}})
    audit = make_audit(model, cuts, dict.fromkeys((cut.id for cut in cuts.cuts), 0.1))
    plan = solve(model, cuts, policy=make_policy(objective={"minimise": "period"}), audit=audit, costs=equal)
    assert plan.cut_ids == (cuts.cuts[5].id,)
    assert plan.prediction.period_s < plan.prediction.latency_s


def test_a_second_secret_input_that_was_not_attacked_refuses_the_cut() -> None:
    """An audit attacks one input; another secret one before the cut was never looked at."""
    nodes = [
        helper.make_node("Add", ["x", "y"], ["s"], name="add"),
        helper.make_node("Relu", ["s"], ["r"], name="relu"),
        helper.make_node("Tanh", ["r"], ["t"], name="tanh"),
    ]
    model = build(nodes, inputs=["x", "y"], outputs=["t"])
    cuts = enumerate_cuts(model)
    audit = make_audit(model, cuts, dict.fromkeys((cut.id for cut in cuts.cuts), 0.0))
    assert _refusal((model, cuts), 0, audit=audit) == "not audited: input 'y' is secret, but only 'x' was attacked"
    plan = solve(model, cuts, policy=make_policy(public_inputs=["y"]), audit=audit, costs=make_costs(model))
    assert plan.cut_ids == (cuts.cuts[0].id,)


def test_each_part_and_the_plan_explain_themselves(chain: tuple[Model, CutSet]) -> None:
    """Every reason is one sentence that names the cut or the device."""
    model, cuts = chain
    plan = solve(model, cuts, policy=make_policy(), audit=_falling(chain), costs=make_costs(model))
    assert plan.reason.startswith(f"Cut at '{cuts.cuts[3].id}', with the rest on 'gpu'")
    assert "ssim at most 0.2 (allowed 0.2)" in plan.parts[0].reason
    assert "'gpu' is cleared for" in plan.parts[1].reason
    assert all(part.reason.endswith(".") for part in plan.parts)


def test_prediction_is_the_sum_of_its_terms(chain: tuple[Model, CutSet]) -> None:
    """Each addend names what it is, where, and how it was found out."""
    model, cuts = chain
    plan = solve(model, cuts, policy=make_policy(), audit=_falling(chain), costs=make_costs(model))
    assert sum(term.latency_s for term in plan.prediction.terms) == pytest.approx(plan.prediction.latency_s)
    assert {term.where for term in plan.prediction.terms} == {ENCLAVE, "gpu"}
    assert all(term.basis for term in plan.prediction.terms)


def test_cuts_of_another_model_are_refused(chain: tuple[Model, CutSet]) -> None:
    """A cut whose tensor the model does not have is an error."""
    _, cuts = chain
    other = build([helper.make_node("Relu", ["x"], ["y"], name="only")], inputs=["x"], outputs=["y"])
    with pytest.raises(PlanError, match="the model has no tensor named"):
        solve(other, cuts, policy=make_policy(), audit=None, costs=make_costs(other))


def test_what_skips_the_device_stays_in_the_enclave() -> None:
    """A residual value from part 1 to part 3 is counted towards the device once, and never on the way back."""
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="middle"),
        helper.make_node("Tanh", ["b"], ["c"], name="later"),
        helper.make_node("Add", ["a", "c"], ["y"], name="join"),
    ]
    model = build(nodes, inputs=["x"], outputs=["y"])
    cuts = enumerate_cuts(model)
    audit = make_audit(model, cuts, dict.fromkeys((cut.id for cut in cuts.cuts), 0.0))
    policy = make_policy(threat_model="output-privacy")
    plan = solve(model, cuts, policy=policy, audit=audit, costs=make_costs(model))
    assert [set(cut.tensors) for cut in cuts.cuts if cut.id in plan.cut_ids] == [{"a"}, {"a", "c"}]
    targets = {value.tensor: (value.source, value.targets) for value in plan.values}
    assert targets["a"] == ("part1", ("part2", "part3"))
    assert targets["c"] == ("part2", ("part3",))
    chosen = next(each for each in plan.alternatives if each.cut_ids == plan.cut_ids)
    assert chosen.boundary_bytes == 64
    assert find_violations(plan, model, audit) == []


def test_weights_on_both_sides_are_warned_of() -> None:
    """A weight that a device needs too is not protected by sealing it in the enclave's part."""
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "w0"], ["y"], name="second"),
    ]
    model = build(nodes, inputs=["x"], outputs=["y"])
    cuts = enumerate_cuts(model)
    plan = solve(model, cuts, policy=make_policy(public_inputs=["x"]), audit=None, costs=make_costs(model))
    assert any("in plain on the device: 'w0'" in warning for warning in plan.warnings)


def test_a_long_list_of_pairs_keeps_the_best_of_each_cut(
    chain: tuple[Model, CutSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit each first cut stands with its best last cut, and the plan says how many are left out."""
    model, cuts = chain
    policy = make_policy(threat_model="output-privacy")
    audit = make_audit(model, cuts, dict.fromkeys((cut.id for cut in cuts.cuts), 0.1))
    whole = solve(model, cuts, policy=policy, audit=audit, costs=make_costs(model))
    monkeypatch.setattr(_alternatives, "MAX_LISTED", 20)
    short = solve(model, cuts, policy=policy, audit=audit, costs=make_costs(model))
    assert len(short.alternatives) == 1 + len(cuts.cuts)
    left_out = len(whole.alternatives) - len(short.alternatives)
    assert any(warning.startswith(f"{left_out} candidates") for warning in short.warnings)
    assert short.cut_ids == whole.cut_ids
    assert find_violations(short, model, audit) == []


def _with_cut(audit: Audit, **changes: object) -> Audit:
    """Change what the audit says of its first cut."""
    return audit.model_copy(update={"cuts": (audit.cuts[0].model_copy(update=changes), *audit.cuts[1:])})


def test_only_bounded_metrics_must_have_converged(chain: tuple[Model, CutSet]) -> None:
    """A figure that nobody bounds may still move; one that the policy bounds may not."""
    model, cuts = chain
    audit = _falling(chain, start=0.1)
    moving = _with_cut(audit, converged=False, unsettled=("reidentification",))
    policy = make_policy(leakage={"max": {"ssim": 0.2}})
    plan = solve(model, cuts, policy=policy, costs=make_costs(model), audit=moving)
    assert [each.refusal for each in plan.alternatives if each.cut_ids == (cuts.cuts[0].id,)] == [None]
    assert find_violations(plan, model, audit=moving) == []
    both = make_policy(leakage={"max": {"ssim": 0.2, "reidentification": 0.2}})
    assert _refusal(chain, 0, policy=both, audit=moving).startswith("not converged in reidentification")


def test_figures_in_doubt_pass_no_policy(chain: tuple[Model, CutSet]) -> None:
    """Low leakage of a model that answers the same to everything is no evidence, converged or not."""
    doubtful = _with_cut(_falling(chain, start=0.0), doubt="what crosses here is the same for all items")
    lenient = make_policy(leakage={"require_converged": False})
    for policy in (make_policy(), lenient):
        assert "the same for all items" in _refusal(chain, 0, policy=policy, audit=doubtful)


def test_too_few_items_for_a_bound_are_named(chain: tuple[Model, CutSet]) -> None:
    """Ten items without a hit leave 26 % possible: the refusal says so, and how many items could show 5 %."""
    audit = _falling(chain, start=0.5)
    strict = make_policy(leakage={"max": {"reidentification": 0.05}})
    said = _refusal(chain, 0, policy=strict, audit=audit)
    assert said.endswith("; 10 held-out items cannot show less than 0.26 in reidentification, 59 could")
