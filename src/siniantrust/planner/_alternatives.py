"""Every candidate that the solver looked at, as data for the report, and the refusals as lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siniantrust.planner._candidates import CandidateTable, Row
from siniantrust.planner._flow import Flow
from siniantrust.planner._plan import ENCLAVE, Alternative, name_devices
from siniantrust.planner._spread import Spread
from siniantrust.planner._traffic import bytes_through

# Pairs of cuts grow with the square of their number; a plan beyond this many alternatives helps nobody.
MAX_LISTED = 5000


def name_cuts(flow: Flow, boundaries: Sequence[int]) -> tuple[str, ...]:
    """Return the ids of the cuts of a candidate: one fewer than its parts."""
    return tuple(flow.ids[boundary] for boundary in boundaries if boundary != flow.whole)


def trusted_alternative(table: CandidateTable) -> Alternative:
    """Describe the whole model in the enclave."""
    latency_s = sum(float(term.latency_s[0]) for term in table.trusted_terms)
    peak = float(table.memory.per_cut[0][table.flow.whole])
    limit = table.policy.enclave.memory_bytes
    refusal = None
    if not table.policy.objective.allow_all_trusted:
        refusal = "the policy does not allow the whole model in the enclave (objective.allow_all_trusted)"
    elif peak > limit:
        refusal = f"the whole model needs {peak:,.0f} bytes, but the enclave has {limit:,}"
    elif table.costs.trusted.unsupported:
        refusal = table.enclave_lack(table.flow.whole, table.flow.whole)
    return Alternative(
        cut_ids=(),
        device=ENCLAVE,
        latency_s=latency_s,
        period_s=latency_s,
        trusted_flops_share=1.0,
        boundary_bytes=0,
        leakage_upper=None,
        refusal=refusal,
    )


def list_alternatives(table: CandidateTable, rows: Sequence[Row]) -> tuple[list[Alternative], int]:
    """Describe the splits, and count those left out.

    Beyond ``MAX_LISTED``, a first cut on a device stands with its best allowed last cut (or its first refusal) only.
    """
    total = sum(len(row.ends) for row in rows)
    if total <= MAX_LISTED:
        return [_describe(table, row, position) for row in rows for position in range(len(row.ends))], 0
    return [_describe(table, row, _foremost(row, table)) for row in rows], total - len(rows)


def _foremost(row: Row, table: CandidateTable) -> int:
    """Return the position that the solver would choose in this row; the first one if none is allowed."""
    first, second = row.latency_s, row.period_s
    if table.policy.objective.minimise == "period":
        first, second = second, first
    allowed = [position for position, refusal in enumerate(row.refusals) if refusal is None]
    return min(allowed, key=lambda position: (first[position], second[position]), default=0)


def _describe(table: CandidateTable, row: Row, position: int) -> Alternative:
    return Alternative(
        cut_ids=name_cuts(table.flow, (row.start, row.ends[position])),
        device=row.device,
        latency_s=float(row.latency_s[position]),
        period_s=float(row.period_s[position]),
        trusted_flops_share=float(row.trusted_flops_share[position]),
        boundary_bytes=int(row.boundary_bytes[position]),
        leakage_upper=table.verdicts[row.start].leakage_upper,
        refusal=row.refusals[position],
    )


def describe_spread(table: CandidateTable, spread: Spread) -> Alternative:
    """Describe an allowed placement over several devices."""
    flow = table.flow
    stages = [bytes_through(flow, stage.start, np.asarray([stage.end], dtype=np.intp)) for stage in spread.stages]
    total = max(table.flops[flow.whole], 1.0)
    return Alternative(
        cut_ids=name_cuts(flow, spread.boundaries),
        device=name_devices([stage.devices for stage in spread.stages]),
        latency_s=spread.latency_s,
        period_s=spread.period_s,
        trusted_flops_share=float(1.0 - (table.flops[spread.end] - table.flops[spread.start]) / total),
        boundary_bytes=int(stages[0][0][0] + sum(bytes_out[0] for _, bytes_out in stages)),
        leakage_upper=table.verdicts[spread.start].leakage_upper,
        refusal=None,
    )


def list_refusals(flow: Flow, rows: Sequence[Row], trusted: Alternative) -> tuple[str, ...]:
    """Return one line per first cut (and device, where the reasons differ), and last the whole model's."""
    by_cut: dict[int, dict[str, list[str]]] = {}
    for row in rows:
        reason = next((refusal for refusal in row.refusals if refusal is not None), "")
        more = f" (and {len(row.ends) - 1} more last cuts are refused too)" if len(row.ends) > 1 else ""
        by_cut.setdefault(row.start, {}).setdefault(reason + more, []).append(row.device)
    lines = []
    for start, reasons in by_cut.items():
        for reason, devices in reasons.items():
            where = "" if len(reasons) == 1 else f" on {', '.join(devices)}"
            lines.append(f"cut '{flow.ids[start]}'{where}: {reason}")
    if not rows:
        lines.append("no split: the policy names no device, or the model has no cut")
    lines.append(f"whole model in the enclave: {trusted.refusal}")
    return tuple(lines)
