from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from planner_models import build, chain_model, make_audit, make_costs, make_policy, random_model

from siniantrust.errors import NoPlanError, PlanError
from siniantrust.graph import CutSet, Model, enumerate_cuts
from siniantrust.planner import (
    ENCLAVE,
    CostProfile,
    Explanation,
    NodeExplanation,
    Plan,
    Policy,
    explain_nodes,
    save_explanation,
    solve,
)
from siniantrust.trust import Label


def _explain(
    model: Model, policy: Policy, costs: CostProfile, leakage: float | None = 0.1, cuts: CutSet | None = None
) -> tuple[Plan, dict[str, NodeExplanation]]:
    cuts = cuts or enumerate_cuts(model)
    audit = None if leakage is None else make_audit(model, cuts, dict.fromkeys((cut.id for cut in cuts.cuts), leakage))
    plan = solve(model, cuts, policy=policy, audit=audit, costs=costs)
    return plan, {row.node: row for row in explain_nodes(model, cuts, plan, costs).nodes}


def _refusing(costs: CostProfile, device: str, *nodes: str) -> CostProfile:
    picky = costs.devices[device].model_copy(update={"unsupported": dict.fromkeys(nodes, "no kernel")})
    return costs.model_copy(update={"devices": {**costs.devices, device: picky}})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 10**6),
    threat_model=st.sampled_from(["input-privacy", "output-privacy"]),
    minimise=st.sampled_from(["latency", "period"]),
    public=st.sampled_from([(), ("x",), ("x", "y")]),
)
def test_an_explanation_is_that_of_the_plan(
    seed: int, threat_model: str, minimise: str, public: tuple[str, ...]
) -> None:
    """Every node is explained once, in its part, with the seconds that the prediction adds up and the plan's labels."""
    source = random.Random(seed)
    model = random_model(seed, nodes=source.randint(4, 14), inputs=("x", "y"))
    cuts = enumerate_cuts(model)
    names = ("gpu", "npu")
    costs = _refusing(make_costs(model, names, seed=seed), "npu", source.choice(model.nodes).name)
    audit = make_audit(model, cuts, {cut.id: source.random() * 0.3 for cut in cuts.cuts})
    policy = make_policy(names, threat_model=threat_model, objective={"minimise": minimise}, public_inputs=public)
    try:
        plan = solve(model, cuts, policy=policy, audit=audit, costs=costs)
    except NoPlanError:
        return
    explanation = explain_nodes(model, cuts, plan, costs)
    rows = {row.node: row for row in explanation.nodes}
    assert [row.node for row in explanation.nodes] == [node.name for node in model.nodes]
    for part in plan.parts:
        mine = [rows[name] for name in part.nodes]
        assert {(row.part, row.device) for row in mine} == {(part.name, "+".join((part.device, *part.replicas)))}
        (term,) = (
            each for each in plan.prediction.terms if each.what == f"compute {part.name.replace('part', 'part ')}"
        )
        assert sum(row.latency_s for row in mine) == pytest.approx(term.latency_s)
    labels = {value.tensor: value.label for value in plan.values}
    for node in model.nodes:
        row = rows[node.name]
        assert row.label in (set(Label) if node.outputs[0] not in labels else {labels[node.outputs[0]]})
        assert set(row.elsewhere_s) | set(row.refused) | {row.device.split("+")[0]} == {ENCLAVE, *names}
        assert set(row.elsewhere_s).isdisjoint(row.refused)
        assert all(
            seconds == costs.devices[name].latency_s[row.node]
            for name, seconds in row.elsewhere_s.items()
            if name != ENCLAVE
        )
    assert sum(run.count for run in explanation.runs) == len(model.nodes)
    assert sum(run.latency_s for run in explanation.runs) == pytest.approx(sum(row.latency_s for row in rows.values()))
    for run in explanation.runs:
        first = next(node.index for node in model.nodes if node.name == run.first)
        held = explanation.nodes[first : first + run.count]
        assert held[-1].node == run.last
        assert {(row.part, row.device, row.label) for row in held} == {(run.part, run.device, run.label)}
        assert sum(run.operators.values()) == run.count


def test_nodes_in_the_enclave_name_the_cut_that_was_refused() -> None:
    """What lies before the cut says why nothing before it was taken: no cut, or the nearest one's refusal."""
    model = chain_model(6)
    cuts = enumerate_cuts(model)
    audit = make_audit(model, cuts, {cut.id: 0.5 - 0.1 * index for index, cut in enumerate(cuts.cuts)})
    costs = make_costs(model)
    plan = solve(model, cuts, policy=make_policy(), audit=audit, costs=costs)
    rows = explain_nodes(model, cuts, plan, costs).nodes
    assert [row.device for row in rows] == [*[ENCLAVE] * 4, "gpu", "gpu"]
    assert rows[0].reason == "no cut lies before it"
    assert rows[3].reason == "no cut before it is allowed with one device"
    nearest = f"the nearest, '{cuts.cuts[2].id}': leaks too much: ssim up to 0.3 by inverter, allowed 0.2"
    assert rows[3].detail.startswith(nearest)
    assert [row.label for row in rows] == [*[Label.SECRET] * 3, *[Label.OBSCURED] * 3]


def test_a_cut_that_is_allowed_but_no_better_is_named_with_its_seconds() -> None:
    """A model that is faster in the enclave says what the best split would have cost."""
    model = chain_model(4)
    costs = make_costs(model)
    slow = costs.devices["gpu"].model_copy(update={"latency_s": {node.name: 1.0 for node in model.nodes}})
    _, rows = _explain(model, make_policy(), costs.model_copy(update={"devices": {"gpu": slow}}))
    best = enumerate_cuts(model).cuts[-1].id
    assert rows["n3"].reason == "a cut before it is allowed, but no better"
    assert rows["n3"].detail.startswith(f"the best is '{best}' with 'gpu': latency 1e+03 ms, here 4.2 ms")


def test_a_node_that_no_device_can_run_says_so() -> None:
    """Each device's own reason stands beside it."""
    model = chain_model(6)
    plan, rows = _explain(model, make_policy(), _refusing(make_costs(model), "gpu", "n2"))
    assert plan.cut_ids == (enumerate_cuts(model).cuts[2].id,)
    assert rows["n2"].reason == "no device may have it"
    assert rows["n2"].refused == {"gpu": "cannot run it: no kernel"}
    assert "cannot run 1 of the model's nodes" in rows["n1"].detail


def test_nodes_on_a_device_say_whether_another_place_is_faster() -> None:
    """A device is the cheapest place, the only one, or faster only in all."""
    model = chain_model(6)
    costs = make_costs(model, ("gpu", "npu"))
    quick = {node.name: 1e-4 if node.name != "n4" else 5e-4 for node in model.nodes}
    gpu = costs.devices["gpu"].model_copy(update={"latency_s": quick})
    npu = costs.devices["npu"].model_copy(update={"latency_s": {node.name: 4e-4 for node in model.nodes}})
    costs = costs.model_copy(update={"devices": {"gpu": gpu, "npu": npu}})
    transfers = {name: each.model_copy(update={"base_s": 0.01}) for name, each in costs.transfers.items()}
    costs = _refusing(costs.model_copy(update={"transfers": transfers}), "npu", "n3")
    policy = make_policy(("gpu", "npu"), objective={"allow_all_trusted": False})
    _, rows = _explain(model, policy, costs)
    assert rows["n2"].reason == "cheapest here"
    assert (rows["n3"].reason, rows["n3"].refused) == (
        "no other device may have it",
        {"npu": "cannot run it: no kernel"},
    )
    assert rows["n4"].reason == "faster elsewhere, but no allowed split that uses this is better"
    assert rows["n4"].detail == "0.4 ms on 'npu'"


def test_a_device_without_clearance_or_memory_says_which() -> None:
    """A device that may not see what a node reads, or cannot hold it beside its part, is no alternative."""
    model = chain_model(6)
    costs = make_costs(model, ("gpu", "npu", "edge"))
    device = [{"name": "gpu"}, {"name": "npu", "clearance": "public"}, {"name": "edge", "memory_bytes": 63}]
    _, rows = _explain(model, make_policy(device=device), costs)
    assert rows["n5"].refused == {
        "npu": "cleared for public values, and it reads obscured ones",
        "edge": "its memory of 63 bytes would be exceeded",
    }
    assert rows["n5"].reason == "no other device may have it"


def test_the_last_part_of_output_privacy_says_that_outputs_are_secret() -> None:
    """Nodes behind the last cut are in the enclave for another reason than those before the first."""
    model = chain_model(6)
    _, rows = _explain(model, make_policy(threat_model="output-privacy"), make_costs(model))
    assert rows["n5"].reason == "behind the last cut: the outputs are secret"
    assert (rows["n5"].label, rows["n4"].label) == (Label.SECRET, Label.OBSCURED)


def test_what_derives_from_no_secret_is_public() -> None:
    """Labels follow the graph: a branch from a public input is public, whatever part it is in."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="secret"),
        helper.make_node("Tanh", ["y"], ["b"], name="public"),
        helper.make_node("Add", ["a", "b"], ["z"], name="join"),
    ]
    model = build(nodes, inputs=["x", "y"], outputs=["z"])
    plan, rows = _explain(model, make_policy(public_inputs=["y"]), make_costs(model), leakage=None)
    assert len(plan.parts) == 1
    assert [row.label for row in rows.values()] == [Label.SECRET, Label.PUBLIC, Label.SECRET]


def test_runs_of_a_long_chain_are_few() -> None:
    """Nodes that differ in cost alone stand in one row, which says how many are cheapest there."""
    model = chain_model(300)
    costs = make_costs(model, ("gpu", "npu"), seed=1)
    policy = make_policy(("gpu", "npu"), public_inputs=["x"])
    cuts = enumerate_cuts(model)
    plan = solve(model, cuts, policy=policy, audit=None, costs=costs)
    explanation = explain_nodes(model, cuts, plan, costs)
    assert len(explanation.nodes) == 300
    assert len(explanation.runs) <= len(plan.parts) + 1
    assert any(" of " in reason for run in explanation.runs for reason in run.reasons)
    assert all(one.last != another.first for one, another in pairwise(explanation.runs))


def test_a_plan_and_costs_of_other_models_are_refused(tmp_path: Path) -> None:
    """An explanation from another model's figures would be none; a file that cannot be written is one line."""
    model, cuts = chain_model(6), enumerate_cuts(chain_model(6))
    costs = make_costs(model)
    plan = solve(model, cuts, policy=make_policy(), audit=None, costs=costs)
    foreign = {"model_sha256": "f" * 64}
    with pytest.raises(PlanError, match="plan: made for model ffffffffffff"):
        explain_nodes(model, cuts, plan.model_copy(update=foreign), costs)
    with pytest.raises(PlanError, match="costs: made for model ffffffffffff"):
        explain_nodes(model, cuts, plan, costs.model_copy(update=foreign))
    with pytest.raises(PlanError, match="nothing is known of device 'gpu'"):
        explain_nodes(model, cuts, plan, costs.model_copy(update={"devices": {}}))
    explanation = explain_nodes(model, cuts, plan, costs)
    save_explanation(explanation, tmp_path / "explanation.json")
    read = json.loads((tmp_path / "explanation.json").read_text())
    assert Explanation.model_validate(read) == explanation
    with pytest.raises(PlanError, match="cannot be written"):
        save_explanation(explanation, tmp_path / "explanation.json" / "below")
