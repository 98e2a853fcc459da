"""The model's cuts in order, each with everything that plan and audit say about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from siniantrust.report._audit_input import AuditRead, CutRead
from siniantrust.report._load import Sources
from siniantrust.report._plan_input import AlternativeRead, PlanRead
from siniantrust.report._text import multiple, readable, short

# A bound of zero would make every multiple infinite; below this it is drawn as this.
_SMALLEST_BOUND = 1e-3
_STRIP_CUTS = 60


@dataclass(frozen=True)
class CutView:
    """A cut as the page shows it. ``number`` counts from 1 along the model and is used on the whole page.

    ``share`` is the part of the model's FLOPs before the cut, ``ratio`` the worst metric's upper bound as a multiple
    of what the policy allows. Either is None where it is not known. ``settled`` says whether the figures that the
    policy bounds are final.
    """

    number: int
    id: str
    label: str
    share: float | None
    segment_share: float | None
    size_bytes: int | None
    upper: dict[str, float]
    ratio: float | None
    measured: CutRead | None
    skipped: str | None
    allowed: bool
    refusals: tuple[tuple[str, str], ...]
    trusted_before: bool
    chosen: bool
    settled: bool

    @property
    def verdict(self) -> str:
        """``over``, ``within``, ``open`` (an attack could still improve) or ``unknown``."""
        if self.ratio is None:
            return "unknown"
        if self.ratio > 1:
            return "over"
        return "within" if self.settled else "open"

    @property
    def multiple(self) -> str:
        """The leakage as a multiple of the bound, in words."""
        return multiple(self.ratio)


def bound_ratio(upper: dict[str, float] | None, bounds: dict[str, float]) -> float | None:
    """Return the worst metric's leakage as a multiple of its bound; None if one is missing and none beyond."""
    ratios = [
        upper[metric] / max(bound, _SMALLEST_BOUND) for metric, bound in bounds.items() if upper and metric in upper
    ]
    worst = max(ratios, default=None)
    return None if worst is None or (len(ratios) < len(bounds) and worst <= 1) else worst


def view_cuts(sources: Sources) -> tuple[CutView, ...]:
    """Return every cut that the plan or the audit names, in the order of the model."""
    plan, audit = sources.plan, sources.audit
    shares = _shares(plan)
    order = _order(plan, audit, shares)
    edges = [order.index(cut_id) for cut_id in plan.cut_ids]
    labels = readable(order)
    views: list[CutView] = []
    reached: float | None = 0.0
    for index, cut_id in enumerate(order):
        mine = [item for item in plan.alternatives if item.cut_ids[:1] == (cut_id,)]
        alone = [item for item in mine if item.cut_ids == (cut_id,)]
        measured = next((cut for cut in audit.cuts if cut.cut_id == cut_id), None) if audit else None
        upper = _upper(measured, mine)
        share = shares.get(cut_id)
        views.append(
            CutView(
                number=index + 1,
                id=cut_id,
                label=short(labels[cut_id], 24),
                share=share,
                segment_share=None if share is None or reached is None else max(share - reached, 0.0),
                size_bytes=alone[0].boundary_bytes if alone else None,
                upper=upper,
                ratio=bound_ratio(upper, plan.policy.leakage.max),
                measured=measured,
                skipped=audit.skipped.get(cut_id) if audit else None,
                allowed=any(item.refusal is None for item in mine),
                refusals=tuple(dict.fromkeys((item.device, item.refusal) for item in mine if item.refusal is not None)),
                trusted_before=_trusted(index, edges, plan),
                chosen=cut_id in plan.cut_ids,
                settled=measured is None or measured.settled_in(plan.policy.leakage.max),
            )
        )
        reached = share if share is not None else reached
    return tuple(views)


def thin_out(cuts: Sequence[CutView]) -> tuple[CutView, ...]:
    """Return at most about sixty cuts, evenly spread, the chosen ones among them; each counts all layers up to it."""
    if len(cuts) <= _STRIP_CUTS:
        return tuple(cuts)
    spread = {round(step * (len(cuts) - 1) / (_STRIP_CUTS - 1)) for step in range(_STRIP_CUTS)}
    kept: list[CutView] = []
    reached = 0.0
    for index, cut in enumerate(cuts):
        if index in spread or cut.chosen:
            segment = None if cut.share is None else max(cut.share - reached, 0.0)
            kept.append(replace(cut, segment_share=segment))
            reached = reached if cut.share is None else cut.share
    return tuple(kept)


def name_cuts(cuts: Iterable[CutView]) -> str:
    """Name cuts by number, runs of them shortened: "cuts 1-4, 7"."""
    runs: list[list[int]] = []
    for number in sorted(cut.number for cut in cuts):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    text = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}\N{EN DASH}{run[-1]}" for run in runs)
    return f"cut {text}" if len(runs) == 1 and len(runs[0]) == 1 else f"cuts {text}"


def _trusted(index: int, edges: Sequence[int], plan: PlanRead) -> bool:
    """Say whether the layers before cut ``index`` run on the trusted side; sides alternate at each chosen cut."""
    crossed = sum(edge < index for edge in edges)
    return plan.parts[min(crossed, len(plan.parts) - 1)].trusted


def _upper(measured: CutRead | None, mine: Sequence[AlternativeRead]) -> dict[str, float]:
    if measured is not None:
        return {metric: estimate.upper for metric, estimate in measured.leakage.items()}
    return dict(next((item.leakage_upper for item in mine if item.leakage_upper is not None), {}))


def _shares(plan: PlanRead) -> dict[str, float]:
    """Return, per cut, the share of FLOPs before it, as far as the alternatives tell.

    With one cut the trusted share is what lies before it. With two, it is what lies before the first and after the
    second: the second cut that leaves least is the same for all, and how much it leaves is known for the plan's own
    first cut, from its first part.
    """
    first: dict[str, float] = {}
    for item in plan.alternatives:
        if item.cut_ids:
            head = item.cut_ids[0]
            first[head] = min(item.trusted_flops_share, first.get(head, 1.0))
    whole = sum(part.flops for part in plan.parts)
    if len(plan.cut_ids) > 1 and whole and plan.cut_ids[0] in first:
        left = first[plan.cut_ids[0]] - plan.parts[0].flops / whole
        first = {cut_id: max(share - left, 0.0) for cut_id, share in first.items()}
    shares = dict(first)
    for item in plan.alternatives:
        if len(item.cut_ids) > 1 and item.cut_ids[-1] not in first:
            tail = item.cut_ids[-1]
            after = item.trusted_flops_share - first[item.cut_ids[0]]
            shares[tail] = min(shares.get(tail, 1.0), 1.0 - after)
    return shares


def _order(plan: PlanRead, audit: AuditRead | None, shares: dict[str, float]) -> list[str]:
    """Return all cut ids along the model: those of known share sorted by it, the audit's others after their elder."""
    named = dict.fromkeys(cut_id for item in plan.alternatives for cut_id in item.cut_ids)
    order = sorted(named, key=lambda cut_id: shares.get(cut_id, 1.0))
    position = 0
    for cut in audit.cuts if audit else ():
        if cut.cut_id in order:
            position = order.index(cut.cut_id) + 1
        else:
            order.insert(position, cut.cut_id)
            position += 1
    for cut_id in (*(audit.skipped if audit else ()), *plan.cut_ids):
        if cut_id not in order:
            order.append(cut_id)
    return order
