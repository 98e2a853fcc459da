from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planner_models import make_audit, make_costs, make_policy, random_model

from siniantrust.errors import NoPlanError
from siniantrust.graph import Cut, CutSet, Model, enumerate_cuts, peak_bytes, prefix_nodes, split
from siniantrust.leakage import Audit
from siniantrust.planner import AffineCost, CostProfile, Policy, find_violations, solve
from siniantrust.planner._flow import trace_flow
from siniantrust.planner._memory import peak_bytes_per_cut
from siniantrust.trust import ThreatModel


def _exchange(cost: AffineCost, bytes_in: int, bytes_out: int) -> float:
    return cost.base_s + bytes_in * cost.seconds_per_byte_in + bytes_out * cost.seconds_per_byte_out


def _passes(model: Model, cuts: CutSet, cut: Cut, policy: Policy, audit: Audit | None) -> bool:
    """Say whether the audit lets a cut be used, by its definition."""
    if audit is None:
        return False
    measured = audit.by_cut(cut.id)
    if measured is None or not measured.converged:
        return False
    inside = set(prefix_nodes(model, cut))
    for other in cuts.cuts:
        entry = audit.by_cut(other.id)
        if entry is None or not inside <= set(prefix_nodes(model, other)):
            continue
        if any(entry.leakage[metric].upper > bound for metric, bound in policy.leakage.max.items()):
            return False
    return True


class _Meter:
    """Adds up bytes and seconds of sets of nodes, one by one."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.inputs = {tensor.name for tensor in model.inputs}
        self.outputs = {tensor.name for tensor in model.outputs}

    def size(self, names: set[str]) -> int:
        return sum(self.model.tensors[name].size_bytes for name in names)

    def read(self, nodes: set[int]) -> set[str]:
        return {name for index in nodes for name in self.model.nodes[index].inputs}

    def made(self, nodes: set[int]) -> set[str]:
        return {name for index in nodes for name in self.model.nodes[index].outputs}

    def moved(self, reading: set[int], making: set[int]) -> int:
        return self.size(self.read(reading) & self.made(making))

    def entering(self, reading: set[int]) -> int:
        return self.size(self.read(reading) & self.inputs)

    def answered(self, making: set[int]) -> int:
        return self.size(self.made(making) & self.outputs)

    def seconds(self, latency_s: dict[str, float], nodes: set[int]) -> float:
        return sum(latency_s[self.model.nodes[index].name] for index in nodes)


def _brute_force(
    model: Model, cuts: CutSet, policy: Policy, audit: Audit | None, costs: CostProfile
) -> list[tuple[float, float]]:
    """Return latency and period of every allowed candidate, each from its own parts, node by node."""
    meter = _Meter(model)
    everything = {node.index for node in model.nodes}
    found = []
    if policy.objective.allow_all_trusted:
        total = _exchange(costs.crossing, meter.entering(everything), meter.answered(everything))
        total += meter.seconds(costs.trusted.latency_s, everything)
        found.append((total, total))
    pairs: list[tuple[Cut, Cut | None]] = [(cut, None) for cut in cuts.cuts]
    hidden = policy.threat_model is ThreatModel.OUTPUT_PRIVACY
    if hidden:
        pairs += list(itertools.product(cuts.cuts, cuts.cuts))
    for device, (first, last) in itertools.product(policy.device, pairs):
        one = set(prefix_nodes(model, first))
        until = set(prefix_nodes(model, last)) if last is not None else everything
        two, three = until - one, everything - until
        if not one < until or not _passes(model, cuts, first, policy, audit) or (hidden and meter.answered(two)):
            continue
        enclave_s = _exchange(costs.crossing, meter.entering(one), meter.moved(two, one) + meter.answered(one))
        enclave_s += meter.seconds(costs.trusted.latency_s, one | three)
        if three:
            enclave_s += _exchange(costs.crossing, meter.moved(three, two), meter.answered(three))
        transfer = costs.transfers[device.name]
        device_s = _exchange(transfer, meter.moved(two, one), meter.moved(three, two) + meter.answered(two))
        device_s += meter.seconds(costs.devices[device.name].latency_s, two)
        found.append((enclave_s + device_s, max(enclave_s, device_s)))
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 10**6),
    nodes=st.integers(3, 12),
    threat_model=st.sampled_from(["input-privacy", "output-privacy"]),
    minimise=st.sampled_from(["latency", "period"]),
    flags=st.sampled_from(["audited", "all trusted", "audited, all trusted"]),
)
def test_solver_finds_what_brute_force_finds_and_its_plan_validates(
    seed: int, nodes: int, threat_model: str, minimise: str, flags: str
) -> None:
    """On random graphs the solver's cost is the minimum over all candidates, and the validator accepts its plan."""
    model = random_model(seed, nodes=nodes)
    cuts = enumerate_cuts(model)
    source = random.Random(seed)
    leakage = {cut.id: source.random() * 0.3 for cut in cuts.cuts if source.random() < 0.8}
    converged = {cut.id: source.random() < 0.8 for cut in cuts.cuts}
    audit = make_audit(model, cuts, leakage, converged=converged) if "audited" in flags else None
    costs = make_costs(model, ("gpu", "npu"), seed=seed)
    policy = make_policy(
        ("gpu", "npu"),
        threat_model=threat_model,
        objective={"minimise": minimise, "allow_all_trusted": "all trusted" in flags},
    )
    candidates = _brute_force(model, cuts, policy, audit, costs)
    if not candidates:
        with pytest.raises(NoPlanError):
            solve(model, cuts, policy=policy, audit=audit, costs=costs)
        return
    plan = solve(model, cuts, policy=policy, audit=audit, costs=costs)
    rank = 0 if minimise == "latency" else 1
    chosen = (plan.prediction.latency_s, plan.prediction.period_s)[rank]
    assert math.isclose(chosen, min(each[rank] for each in candidates), rel_tol=1e-9)
    assert sum(each.refusal is None for each in plan.alternatives) == len(candidates)
    assert find_violations(plan, model, audit) == []


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), nodes=st.integers(3, 14))
def test_peak_memory_is_never_below_that_of_the_extracted_part(seed: int, nodes: int) -> None:
    """The bound for every prefix and suffix covers what the part itself needs, and covers it within one activation."""
    model = random_model(seed, nodes=nodes)
    cuts = enumerate_cuts(model)
    flow = trace_flow(model, {cut.id: cut.tensors for cut in cuts.cuts}, public_inputs=())
    before, after = peak_bytes_per_cut(flow)
    slack = 2 * max(tensor.size_bytes for tensor in model.tensors.values())
    for index, cut in enumerate(cuts.cuts):
        first, second = split(model, [cut])
        for bound, part in ((before[index], first), (after[index], second)):
            assert peak_bytes(part) <= bound <= peak_bytes(part) + slack
    assert before[flow.whole] == peak_bytes(split(model, [])[0])
