"""Placements over several untrusted devices: the best chain between every first and last cut that may have one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from siniantrust.planner._candidates import CandidateTable, Row
from siniantrust.planner._chain import Chains, find_chains
from siniantrust.planner._crews import Crews
from siniantrust.planner._flow import BoolArray, FloatArray
from siniantrust.planner._line import Line
from siniantrust.planner._predict import Term, device_terms, enclave_terms
from siniantrust.planner._spread import Spread
from siniantrust.planner._stretches import StretchTable
from siniantrust.planner._traffic import bytes_through, measure_traffic
from siniantrust.trust import Label, may_see

# More sets of devices than this would take minutes.
_MOST_STATES = 4096


@dataclass(frozen=True)
class _Pairs:
    """The pairs of a first and a last cut that may have chains between them; arrays run over the pairs.

    ``open`` says that devices cleared for obscured values may take part; else only those cleared for secret ones.
    """

    starts: np.ndarray
    ends: np.ndarray
    enclave_s: FloatArray
    open: BoolArray
    least_s: FloatArray


def search_spreads(table: CandidateTable, rows: Sequence[Row]) -> tuple[Spread | None, str | None]:
    """Return the best placement over the devices of the policy, and a warning if not all were searched.

    Each device holds one part, and with ``period`` as the objective several may share one as replicas. The search is
    exact over the table's cuts. One device alone is found as well; None where no placement is allowed.
    """
    if len(table.policy.device) < 2 or not table.splits:  # noqa: PLR2004 - one device alone is the other search's
        return None, None
    stretches = StretchTable(table.flow, table.policy, table.costs, table.memory)
    crews = Crews(tuple(len(kind.names) for kind in stretches.kinds), replicated=_by_period(table))
    if len(crews.states) > _MOST_STATES:
        number = len(table.policy.device)
        return None, f"{number} devices that differ are too many for a search over all sets: each was tried alone."
    pairs = _allowed_pairs(table, stretches, rows)
    if pairs is None:
        return None, None
    found: Spread | None = None
    ends = np.unique(pairs.ends)
    bounds = [float(pairs.least_s[pairs.ends == end].min()) for end in ends]
    for position in np.argsort(bounds, kind="stable"):
        if found is not None and bounds[position] >= _rank(table, found)[0]:
            break
        better = _best_between(table, stretches, crews, _having_end(pairs, int(ends[position])))
        if better is not None and (found is None or _rank(table, better) < _rank(table, found)):
            found = better
    return found, None


def _by_period(table: CandidateTable) -> bool:
    return table.policy.objective.minimise == "period"


def _rank(table: CandidateTable, spread: Spread) -> tuple[float, float]:
    pair = (spread.latency_s, spread.period_s)
    return (pair[1], pair[0]) if _by_period(table) else pair


def _allowed_pairs(table: CandidateTable, stretches: StretchTable, rows: Sequence[Row]) -> _Pairs | None:
    """List the pairs, with a lower bound of each one's rank: the enclave alone, or all nodes at their fastest.

    The rows of single devices know the enclave's seconds, but leave out last cuts that their device is refused.
    """
    nodes = table.flow.model.nodes
    devices = [table.costs.devices[device.name] for device in table.policy.device]
    fastest = table.flow.summed([min(each.latency_s[node.name] for each in devices) for node in nodes])
    has_secret = any(may_see(kind.clearance, Label.SECRET) for kind in stretches.kinds)
    widest: dict[int, Row] = {}
    for row in rows:
        if row.start not in widest or len(row.ends) > len(widest[row.start].ends):
            widest[row.start] = row
    columns: list[tuple[np.ndarray, ...]] = []
    for start, row in widest.items():
        ends = table.ends(start)
        is_open = table.may_surround(start, ends, clearance=Label.OBSCURED)
        usable = is_open | table.may_surround(start, ends, clearance=Label.SECRET) if has_secret else is_open
        if usable.any():
            enclave_s = row.enclave_s if len(row.ends) == len(ends) else table.enclave_s(start, ends)
            compute_s = np.maximum(fastest[ends] - fastest[start], 0.0)
            found = (np.full(len(ends), start, dtype=np.intp), ends, enclave_s, is_open, compute_s)
            columns.append(tuple(column[usable] for column in found))
    if not columns:
        return None
    starts, ends, enclave_s, is_open, compute_s = (np.concatenate(column) for column in zip(*columns, strict=True))
    least_s = enclave_s if _by_period(table) else enclave_s + compute_s
    return _Pairs(starts, ends, enclave_s, is_open, least_s)


def _having_end(pairs: _Pairs, end: int) -> _Pairs:
    mine = pairs.ends == end
    return _Pairs(pairs.starts[mine], pairs.ends[mine], pairs.enclave_s[mine], pairs.open[mine], pairs.least_s[mine])


def _best_between(table: CandidateTable, stretches: StretchTable, crews: Crews, pairs: _Pairs) -> Spread | None:
    """Return the best chain over pairs that share a last cut."""
    flow, end = table.flow, int(pairs.ends[0])
    inside = flow.everywhere if end == flow.whole else flow.contained(end)
    within = sum(1 << split for split in table.splits) & inside | 1 << end
    line = Line(stretches, end, within)
    longest_s = np.inf
    if _by_period(table):
        chains = find_chains(line, longest_s=None, crews=crews)
        longest_s = float(np.maximum(pairs.enclave_s, _values(chains, pairs)).min())
        if not np.isfinite(longest_s):
            return None
    chains = find_chains(line, longest_s=longest_s, crews=crews)
    total = _values(chains, pairs) + pairs.enclave_s
    total = np.where(pairs.enclave_s <= longest_s, total, np.inf)
    best = int(total.argmin())
    if not np.isfinite(total[best]):
        return None
    enclave_s = float(pairs.enclave_s[best])
    stages = chains.follow(line.places[int(pairs.starts[best])], _state(chains, is_open=bool(pairs.open[best])))
    return Spread(
        stages=tuple(stages),
        latency_s=enclave_s + sum(stage.latency_s for stage in stages),
        period_s=max(enclave_s, *(stage.period_s for stage in stages)),
    )


def _values(chains: Chains, pairs: _Pairs) -> FloatArray:
    states = [_state(chains, is_open=each) for each in (False, True)]
    positions = [chains.line.places[start] for start in pairs.starts.tolist()]
    value: FloatArray = chains.value[np.where(pairs.open, states[1], states[0]), positions]
    return value


def _state(chains: Chains, *, is_open: bool) -> int:
    kinds: Sequence[Label] = [kind.clearance for kind in chains.line.table.kinds]
    return chains.state_of([is_open or may_see(clearance, Label.SECRET) for clearance in kinds])


def spread_terms(table: CandidateTable, spread: Spread) -> list[Term]:
    """Return the terms of a placement; of replicas those of the slowest."""
    flow, costs = table.flow, table.costs
    ends = np.asarray([spread.end], dtype=np.intp)
    traffic = measure_traffic(flow, spread.start, ends)
    parts = len(spread.stages) + 2
    first, last = enclave_terms(traffic, table.trusted_s, costs, start=spread.start, ends=ends, parts=parts)
    between: list[Term] = []
    for part, stage in enumerate(spread.stages, start=2):
        end = np.asarray([stage.end], dtype=np.intp)
        moved = bytes_through(flow, stage.start, end)
        device_s = table.compute(stage.devices[0]).device_s
        spent_s = np.maximum(device_s[end] - device_s[stage.start], 0.0)
        between += device_terms(costs, moved_bytes=moved, compute_s=spent_s, device=stage.devices[0], part=part)
    return [*first, *between, *last]
