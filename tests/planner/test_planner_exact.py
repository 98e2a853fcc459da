from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planner_models import Meter, chain_model, exchange_s, make_audit, make_costs, make_policy, random_model

from siniantrust.errors import NoPlanError
from siniantrust.graph import Cut, CutSet, Model, enumerate_cuts, peak_bytes, prefix_nodes, split
from siniantrust.leakage import Audit
from siniantrust.planner import CostProfile, Plan, Policy, _chain, _line, find_violations, solve
from siniantrust.planner._flow import trace_flow
from siniantrust.planner._line import Band, Line
from siniantrust.planner._memory import Memory
from siniantrust.planner._stretches import StretchTable
from siniantrust.planner._traffic import tangled_with
from siniantrust.trust import ThreatModel


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


def _brute_force(
    model: Model, cuts: CutSet, policy: Policy, audit: Audit | None, costs: CostProfile
) -> list[tuple[float, float]]:
    """Return latency and period of every allowed placement, each from its own parts, node by node."""
    meter = Meter(model)
    everything = {node.index for node in model.nodes}
    found = []
    if policy.objective.allow_all_trusted and not costs.trusted.unsupported:
        total = exchange_s(costs.crossing, meter.entering(everything), meter.answered(everything))
        total += meter.seconds(costs.trusted.latency_s, everything)
        found.append((total, total))
    pairs: list[tuple[Cut, Cut | None]] = [(cut, None) for cut in cuts.cuts]
    hidden = policy.threat_model is ThreatModel.OUTPUT_PRIVACY
    if hidden:
        pairs += list(itertools.product(cuts.cuts, cuts.cuts))
    for first, last in pairs:
        one = set(prefix_nodes(model, first))
        until = set(prefix_nodes(model, last)) if last is not None else everything
        two, three = until - one, everything - until
        if not one < until or not _passes(model, cuts, first, policy, audit) or (hidden and meter.answered(two)):
            continue
        if costs.trusted.unsupported.keys() & {model.nodes[index].name for index in one | three}:
            continue
        enclave_s = exchange_s(costs.crossing, meter.entering(one), meter.moved(two, one) + meter.answered(one))
        enclave_s += meter.seconds(costs.trusted.latency_s, one | three)
        if three:
            enclave_s += exchange_s(costs.crossing, meter.moved(three, two), meter.answered(three))
        for latencies, periods in _shared_out(meter, sorted(two), policy, costs):
            found.append((enclave_s + sum(latencies), max(enclave_s, *periods)))
    return found


def _shared_out(
    meter: Meter, nodes: list[int], policy: Policy, costs: CostProfile
) -> Iterator[tuple[list[float], list[float]]]:
    """Give every node to every set of devices, and yield the seconds where that makes parts in some order."""
    devices = {device.name: device for device in policy.device}
    most = len(devices) if policy.objective.minimise == "period" else 1
    crews = [crew for size in range(1, most + 1) for crew in itertools.combinations(devices, size)]
    everything = {node.index for node in meter.model.nodes}
    for given_to in itertools.product(crews, repeat=len(nodes)):
        parts = {crew: {n for n, c in zip(nodes, given_to, strict=True) if c == crew} for crew in set(given_to)}
        if len({name for crew in parts for name in crew}) < sum(map(len, parts)) or not _orderly(meter, parts):
            continue
        latencies, periods = [], []
        for crew, mine in parts.items():
            others = everything - mine
            bytes_in = meter.moved(mine, others) + meter.entering(mine)
            bytes_out = meter.moved(others, mine) + meter.answered(mine)
            spent = [
                exchange_s(costs.transfers[name], bytes_in, bytes_out)
                + meter.seconds(costs.devices[name].latency_s, mine)
                for name in crew
            ]
            latencies.append(max(spent))
            periods.append(1 / sum(1 / seconds for seconds in spent))
            limits = [devices[name].memory_bytes for name in crew]
            refused = {node for name in crew for node in costs.devices[name].unsupported}
            names = {meter.model.nodes[index].name for index in mine}
            if refused & names or any(limit is not None and meter.peak(mine) > limit for limit in limits):
                break
        else:
            yield latencies, periods


def _orderly(meter: Meter, parts: Mapping[tuple[str, ...], set[int]]) -> bool:
    """Say whether one part after the other can run."""
    left = dict(parts)
    while left:
        behind = set().union(*left.values())
        ready = [crew for crew, mine in left.items() if not meter.moved(mine, behind - mine)]
        if not ready:
            return False
        del left[ready[0]]
    return True


def _solve_in_tiles(side: int, *arguments: Any, **named: Any) -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_line, "_SIDE", side)
        return solve(*arguments, **named)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from([(12, 1), (9, 2), (6, 3)]),
    side=st.sampled_from([1, 2, 128]),
    threat_model=st.sampled_from(["input-privacy", "output-privacy"]),
    minimise=st.sampled_from(["latency", "period"]),
    flags=st.sets(
        st.sampled_from(
            ["not audited", "all trusted", "little memory", "alike", "unsupported", "slow devices", "enclave lacks"]
        )
    ),
)
def test_solver_finds_what_brute_force_finds_and_its_plan_validates(
    seed: int, shape: tuple[int, int], side: int, threat_model: str, minimise: str, flags: set[str]
) -> None:
    """On random graphs the solver's cost is the minimum over all placements, and the validator accepts its plan.

    That holds for tiles of any size, small ones with bounds between them and one for all.
    """
    source = random.Random(seed)
    model = random_model(seed, nodes=source.randint(3, shape[0]))
    cuts = enumerate_cuts(model, max_tensors=99, cap=10_000)
    assert not cuts.capped
    leakage = {cut.id: source.random() * 0.21 for cut in cuts.cuts if source.random() < 0.9}
    converged = {cut.id: source.random() < 0.9 for cut in cuts.cuts}
    audit = make_audit(model, cuts, leakage, converged=converged) if "not audited" not in flags or seed % 4 else None
    names = ("gpu", "npu", "tpu")[: shape[1]]
    costs = make_costs(model, names, seed=seed)
    if "alike" in flags:
        costs = costs.model_copy(
            update={
                "devices": dict.fromkeys(names, costs.devices["gpu"]),
                "transfers": dict.fromkeys(names, costs.transfers["gpu"]),
            }
        )
    if "slow devices" in flags:
        quick = {node: seconds / 100 for node, seconds in costs.trusted.latency_s.items()}
        costs = costs.model_copy(update={"trusted": costs.trusted.model_copy(update={"latency_s": quick})})
    if "unsupported" in flags:
        refused = {
            name: cost.model_copy(
                update={"unsupported": {node.name: "no" for node in model.nodes if source.random() < 0.2}}
            )
            for name, cost in costs.devices.items()
        }
        costs = costs.model_copy(update={"devices": refused})
    if "enclave lacks" in flags:
        lacks = {node.name: "no" for node in model.nodes if source.random() < 0.15}
        costs = costs.model_copy(update={"trusted": costs.trusted.model_copy(update={"unsupported": lacks})})
    limits = {name: source.randint(64, 700) for name in names} if "little memory" in flags else {}
    policy = make_policy(
        threat_model=threat_model,
        objective={"minimise": minimise, "allow_all_trusted": "all trusted" in flags},
        device=[{"name": name} | ({"memory_bytes": limits[name]} if limits else {}) for name in names],
    )
    candidates = _brute_force(model, cuts, policy, audit, costs)
    if not candidates:
        with pytest.raises(NoPlanError):
            _solve_in_tiles(side, model, cuts, policy=policy, audit=audit, costs=costs)
        return
    plan = _solve_in_tiles(side, model, cuts, policy=policy, audit=audit, costs=costs)
    rank = 0 if minimise == "latency" else 1
    chosen = (plan.prediction.latency_s, plan.prediction.period_s)[rank]
    assert math.isclose(chosen, min(each[rank] for each in candidates), rel_tol=1e-9)
    assert find_violations(plan, model, audit) == []


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), side=st.integers(1, 7), inputs=st.sampled_from([("x",), ("x", "y")]))
def test_a_tile_holds_what_its_stretches_cost_one_by_one(seed: int, side: int, inputs: tuple[str, ...]) -> None:
    """Sums of one term per end give the seconds of every stretch, and what is none is ruled out."""
    model = random_model(seed, nodes=random.Random(seed).randint(4, 12), inputs=inputs)
    # Behind these cuts, unlike those that are enumerated, inputs of the model may be read.
    cuts: dict[str, tuple[str, ...]] = {name: (name,) for node in model.nodes[:-1] for name in node.outputs}
    cuts |= {cut.id: cut.tensors for cut in enumerate_cuts(model, max_tensors=99, cap=10_000).cuts}
    flow = trace_flow(model, cuts, public_inputs=inputs)
    costs = make_costs(model, ("gpu", "npu"), seed=seed)
    table = StretchTable(flow, make_policy(("gpu", "npu")), costs, Memory(flow))
    prefixes = [
        {node.index for node in model.nodes if flow.node_masks[node.index] >> cut & 1} for cut in range(flow.whole + 1)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_line, "_SIDE", side)
        line = Line(table, flow.whole, flow.everywhere)
        for first in range(len(line.tiles)):
            band = line.band(first)
            for last in range(first, len(line.tiles)):
                found = band.latency_s(last)
                for row, start in enumerate(line.order[band.rows].tolist()):
                    for column, end in enumerate(line.order[line.tiles[last]].tolist()):
                        held = prefixes[start] < prefixes[end]
                        expected = table.behind(start, np.asarray([end]))[:, 0] if held else np.inf
                        assert np.allclose(found[:, row, column], expected, rtol=1e-9, atol=0)


def _step_everywhere(
    search: _chain._Search, band: Band, state: int, taking: int, left: int, period_s: np.ndarray
) -> None:
    """Stand in for a step: look into every tile, and hold what is there against the bound."""
    bound = search._bound(band, taking, left, period_s)
    held = (search.value, search.next_position, search.next_taking)
    for offset in range(bound.shape[1]):
        before = [array[state, band.rows].copy() for array in held]
        search.value[state, band.rows] = np.inf
        search._look_into(band, state, taking, left, band.first + offset)
        found = search.value[state, band.rows].copy()
        assert (found >= bound[:, offset] * (1 - 1e-9)).all()
        worse = before[0] <= found
        for array, old in zip(held, before, strict=True):
            array[state, band.rows] = np.where(worse, old, array[state, band.rows])


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from(["chain", "random", "two inputs"]),
    minimise=st.sampled_from(["latency", "period"]),
    memory=st.sampled_from(["limited", "not limited"]),
    clearances=st.lists(st.sampled_from(["public", "obscured", "secret"]), min_size=3, max_size=3),
)
def test_tiles_that_bounds_rule_out_hold_nothing_better(
    seed: int, shape: str, minimise: str, memory: str, clearances: list[str]
) -> None:
    """On graphs beyond brute force, no bound is above what is in its tile, and looking everywhere finds no better."""
    source = random.Random(seed)
    inputs = ("x", "y") if shape == "two inputs" else ("x",)
    model = chain_model(40) if shape == "chain" else random_model(seed, nodes=source.randint(10, 24), inputs=inputs)
    cuts = enumerate_cuts(model)
    names = ("gpu", "npu", "tpu")
    costs = make_costs(model, names, seed=seed)
    moving = {name: costs.transfers[name].model_copy(update={"base_s": 1e-6}) for name in names}
    costs = costs.model_copy(update={"transfers": moving})
    refused = {node.name: "no" for node in model.nodes if source.random() < 0.05}
    picky = costs.devices["gpu"].model_copy(update={"unsupported": refused})
    costs = costs.model_copy(update={"devices": {**costs.devices, "gpu": picky}})
    most = sum(node.parameter_bytes for node in model.nodes) // 2 + 200
    limits = {"memory_bytes": source.randint(most // 4, most)} if memory == "limited" else {}
    policy = make_policy(
        public_inputs=["x"],
        objective={"minimise": minimise, "allow_all_trusted": True},
        device=[
            {"name": name, "clearance": clearance} | limits for name, clearance in zip(names, clearances, strict=True)
        ],
    )
    side = source.randint(1, 7)
    plan = _solve_in_tiles(side, model, cuts, policy=policy, audit=None, costs=costs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_chain._Search, "_step", _step_everywhere)
        thorough = _solve_in_tiles(side, model, cuts, policy=policy, audit=None, costs=costs)
    found, expected = (
        each.prediction.latency_s if minimise == "latency" else each.prediction.period_s for each in (plan, thorough)
    )
    assert math.isclose(found, expected, rel_tol=1e-9)
    assert find_violations(plan, model, None) == []


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), nodes=st.integers(3, 14), inputs=st.sampled_from([("x",), ("x", "y")]))
def test_memory_of_a_stretch_is_counted_like_node_by_node(seed: int, nodes: int, inputs: tuple[str, ...]) -> None:
    """Whatever shortcut is taken, a stretch fits a limit if and only if the most that is alive in it does."""
    model = random_model(seed, nodes=nodes, inputs=inputs)
    cuts = enumerate_cuts(model, max_tensors=99, cap=10_000)
    flow = trace_flow(model, {cut.id: cut.tensors for cut in cuts.cuts}, public_inputs=())
    memory, meter, everything = Memory(flow), Meter(model), {node.index for node in model.nodes}
    prefixes = [set(prefix_nodes(model, cut)) for cut in cuts.cuts] + [everything]
    source = random.Random(seed)
    for start, inside in enumerate(prefixes[:-1]):
        ends = np.asarray([end for end, held in enumerate(prefixes) if inside < held])
        peaks = [meter.peak(prefixes[end] - inside) for end in ends]
        for limit in {source.choice(peaks), source.choice(peaks) - 1, source.randint(0, max(peaks))}:
            expected = [peak <= limit for peak in peaks]
            assert (memory.between(start, ends, limit_bytes=limit) <= limit).tolist() == expected
            assert (memory.between(start, ends[-1:], limit_bytes=limit) <= limit).tolist() == expected[-1:]
            clear = ~flow.at(tangled_with(flow, start), ends)
            asked = np.ones((1, len(ends)), dtype=np.bool_)
            found = memory.fits(np.asarray([start]), ends, asked, limit_bytes=limit, clear=False)
            assert found[0].tolist() == expected
            if clear.any():
                found = memory.fits(np.asarray([start]), ends[clear], asked[:, clear], limit_bytes=limit, clear=True)
                assert found[0].tolist() == list(itertools.compress(expected, clear))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), nodes=st.integers(3, 14))
def test_peak_memory_is_never_below_that_of_the_extracted_part(seed: int, nodes: int) -> None:
    """The bound for every prefix and suffix covers what the part itself needs, and covers it within one activation."""
    model = random_model(seed, nodes=nodes)
    cuts = enumerate_cuts(model)
    flow = trace_flow(model, {cut.id: cut.tensors for cut in cuts.cuts}, public_inputs=())
    before, after = Memory(flow).per_cut
    slack = 2 * max(tensor.size_bytes for tensor in model.tensors.values())
    for index, cut in enumerate(cuts.cuts):
        first, second = split(model, [cut])
        for bound, part in ((before[index], first), (after[index], second)):
            assert peak_bytes(part) <= bound <= peak_bytes(part) + slack
    assert before[flow.whole] == peak_bytes(split(model, [])[0])
