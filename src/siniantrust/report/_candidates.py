"""The plan's alternatives as candidates: who is on the Pareto front, and which of very many to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from siniantrust.report._cuts import CutView, bound_ratio
from siniantrust.report._load import Sources
from siniantrust.report._plan_input import AlternativeRead
from siniantrust.report._text import clean

_SHOWN = 300


@dataclass(frozen=True)
class Candidate:
    """One alternative of the plan. ``label`` are its cuts' numbers; ``ratio`` as in ``CutView``, None when unknown."""

    label: str
    title: str
    device: str
    latency_s: float
    period_s: float
    trusted_flops_share: float
    boundary_bytes: int
    ratio: float | None
    refusal: str | None
    all_trusted: bool
    chosen: bool
    on_front: bool


def candidates(sources: Sources, cuts: Sequence[CutView]) -> list[Candidate]:
    """Return every alternative in the order of the plan, with those on the Pareto front of the allowed ones marked."""
    plan = sources.plan
    numbers = {cut.id: cut for cut in cuts}
    stages = ["+".join((part.device, *part.replicas)) for part in plan.parts if not part.trusted]
    device = ", ".join(stages) or plan.parts[0].device
    padded = len(plan.masking.layers) if plan.masking else 0
    ratios = [_ratio(item, plan.policy.leakage.max) for item in plan.alternatives]
    allowed = [
        (item.latency_s, ratio)
        for item, ratio in zip(plan.alternatives, ratios, strict=True)
        if item.refusal is None and ratio is not None
    ]
    return [
        Candidate(
            label="+".join(str(numbers[cut_id].number) for cut_id in item.cut_ids),
            title=(" + ".join(numbers[cut_id].label for cut_id in item.cut_ids) or "no cut")
            + (f", {item.padded_layers} padded" if item.padded_layers else ""),
            device=clean(item.device),
            latency_s=item.latency_s,
            period_s=item.period_s,
            trusted_flops_share=item.trusted_flops_share,
            boundary_bytes=item.boundary_bytes,
            ratio=ratio,
            refusal=None if item.refusal is None else clean(item.refusal),
            all_trusted=_all_trusted(item),
            chosen=(item.cut_ids, item.device, item.padded_layers) == (plan.cut_ids, device, padded),
            on_front=item.refusal is None and ratio is not None and not _dominated((item.latency_s, ratio), allowed),
        )
        for item, ratio in zip(plan.alternatives, ratios, strict=True)
    ]


def notable(found: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates to show: all, or of very many the best for each first cut and device, and the front.

    Plans with two cuts hold a candidate for every pair.
    """
    if len(found) <= _SHOWN:
        return list(found)
    best: dict[tuple[str, str], Candidate] = {}
    for item in found:
        key = (item.label.partition("+")[0], item.device)
        if key not in best or _rank(item) < _rank(best[key]):
            best[key] = item
    keep = {id(item) for item in best.values()}
    return [item for item in found if id(item) in keep or item.chosen or item.on_front]


def _rank(item: Candidate) -> tuple[bool, float]:
    return item.refusal is not None, item.latency_s


def _ratio(item: AlternativeRead, bounds: dict[str, float]) -> float | None:
    return 0.0 if _all_trusted(item) else bound_ratio(item.leakage_upper, bounds)


def _all_trusted(item: AlternativeRead) -> bool:
    return not item.cut_ids and item.device == "enclave"


def _dominated(mine: tuple[float, float], others: Sequence[tuple[float, float]]) -> bool:
    """Say whether another candidate is at least as good in both and better in one."""
    return any(latency <= mine[0] and ratio <= mine[1] and (latency, ratio) != mine for latency, ratio in others)
