"""How long the solver takes over three devices that differ: costs are made up, so only the search is timed."""

from __future__ import annotations

import itertools
import time

import numpy as np
from networks import make_chain, make_residual
from results_file import Bar, Outcome

from siniantrust.graph import Model, enumerate_cuts, load_model, peak_bytes, split
from siniantrust.planner import AffineCost, ComputeCost, CostProfile, parse_policy, solve

_DEVICES = ("gpu", "npu", "edge")
_SIZES = (100, 1000, 10_000)
_BAR_S = 10.0
# Three devices with this share each hold the model, but no two of them do.
_SHARE = 0.4


def run(*, quick: bool) -> Outcome:
    """Time the search on chains and residual networks, for latency and for the period (quick: the smallest only)."""
    sizes = _SIZES[:1] if quick else _SIZES
    rows: list[dict[str, object]] = []
    for shape, make in (("chain", make_chain), ("residual", make_residual)):
        models = {nodes: load_model(make(nodes)) for nodes in sizes}
        for objective, share in itertools.product(("latency", "period"), (None, _SHARE)):
            budget = "none" if share is None else f"{share:.0%} of the model's"
            row: dict[str, object] = {"network": shape, "objective": objective, "memory of a device": budget}
            for nodes, model in models.items():
                row[f"{nodes:,} nodes, s"], parts = _solve_s(model, objective, share, turns=1 if quick else 3)
                row["parts of the largest"] = parts
            rows.append(row)
    slowest_s = max(float(str(row[f"{sizes[-1]:,} nodes, s"])) for row in rows)
    return Outcome(
        title="The solver over three devices",
        method=(
            "Seconds of `planner.solve` with the model loaded and its cuts known, medians of three. Every node costs "
            "something else on each of three devices (uniform random), the enclave ten times as much, all inputs are "
            "public, and every cut may be the border of a part. A device's memory is unlimited, or that share of "
            "what the whole model needs."
        ),
        rows=rows,
        bars=[] if quick else [Bar(f"the slowest search over {sizes[-1]:,} nodes, seconds", _BAR_S, slowest_s)],
        remarks=[],
    )


def _solve_s(model: Model, objective: str, share: float | None, *, turns: int) -> tuple[float, int]:
    limit: dict[str, int] = {}
    if share is not None:
        limit["memory_bytes"] = int(share * peak_bytes(split(model, [])[0]))
    policy = parse_policy(
        {
            "enclave": {"accept": ["simulated"], "memory_bytes": 1 << 40},
            "device": [{"name": name} | limit for name in _DEVICES],
            "objective": {"minimise": "latency" if objective == "latency" else "period"},
            "public_inputs": [tensor.name for tensor in model.inputs],
        },
        origin="benchmark",
    )
    cuts, costs = enumerate_cuts(model), _made_up(model)
    taken = []
    for _ in range(turns):
        start = time.perf_counter()
        plan = solve(model, cuts, policy=policy, audit=None, costs=costs)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken)), len(plan.parts)


def _made_up(model: Model) -> CostProfile:
    source = np.random.default_rng(0)

    def seconds(most: float) -> dict[str, float]:
        return {node.name: float(source.uniform(0, most)) for node in model.nodes}

    exchange = AffineCost(base_s=1e-5, seconds_per_byte_in=1e-9, seconds_per_byte_out=1e-9, basis="made up")
    return CostProfile(
        model_sha256=model.sha256,
        trusted=ComputeCost(latency_s=seconds(1e-3), basis="made up"),
        devices={name: ComputeCost(latency_s=seconds(1e-4), basis="made up") for name in _DEVICES},
        crossing=exchange,
        transfers=dict.fromkeys(_DEVICES, exchange),
        machine="made up",
    )
