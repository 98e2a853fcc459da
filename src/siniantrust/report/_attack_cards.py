"""A card for every attack: what it is, what it takes, how far it got, and what more budget would have done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from siniantrust.report._attack_sweep import sweep_figure
from siniantrust.report._audit_input import DOWNSTREAM, AttackRead, AttackSummaryRead
from siniantrust.report._axis import Key
from siniantrust.report._curve_figures import attack_keys
from siniantrust.report._cuts import CutView, name_cuts
from siniantrust.report._load import Sources
from siniantrust.report._text import budget_words, clean, in_policy_order, metric_title, score

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True)
class Reach:
    """How far an attack gets in one metric: the most it leaks and at which cut, and at the plan's cut."""

    metric: str
    most: str
    most_at: CutView
    at_chosen: str | None


@dataclass(frozen=True)
class Sweep:
    """Budgets that an attack was run with at one cut, as text; ``leakage`` is metric and value."""

    cut: CutView
    rungs: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


@dataclass(frozen=True)
class Card:
    """One attack. ``lines`` say in words where it converged, what to try next, and where it was not run or declined."""

    key: Key
    summary: AttackSummaryRead
    reach: tuple[Reach, ...]
    lines: tuple[str, ...]
    declined: tuple[tuple[str, str], ...]
    sweep: Markup | None
    sweep_cut: CutView | None
    sweeps: tuple[Sweep, ...]
    time_s: float


def attack_cards(sources: Sources, cuts: Sequence[CutView]) -> tuple[Card, ...]:
    """Return a card for every attack that the audit names."""
    audit = sources.audit
    if audit is None:
        return ()
    bounds = list(sources.plan.policy.leakage.max)
    keys = attack_keys(audit)
    return tuple(_card(name, key, audit.attacks.get(name), cuts, bounds) for name, key in keys.items())


def _card(
    name: str, key: Key, summary: AttackSummaryRead | None, cuts: Sequence[CutView], bounds: Sequence[str]
) -> Card:
    ran = [(cut, cut.measured.attacks[name]) for cut in cuts if cut.measured and name in cut.measured.attacks]
    swept = [(cut, attack) for cut, attack in ran if attack.rungs]
    shown = next((pair for pair in swept if pair[0].chosen), None) or max(
        swept, key=lambda pair: (len(pair[1].rungs), pair[0].number), default=None
    )
    return Card(
        key=key,
        summary=summary or AttackSummaryRead(title=clean(name), source="", knowledge="", cost=""),
        reach=_reach(ran, bounds),
        lines=_lines(name, ran, cuts),
        declined=_declined(name, cuts),
        sweep=None if shown is None else sweep_figure(name, shown[0], shown[1].rungs, bounds),
        sweep_cut=None if shown is None else shown[0],
        sweeps=tuple(_sweep(cut, attack, bounds) for cut, attack in swept),
        time_s=sum(attack.time_s for _, attack in ran),
    )


def _reach(ran: Sequence[tuple[CutView, AttackRead]], bounds: Sequence[str]) -> tuple[Reach, ...]:
    metrics = in_policy_order(dict.fromkeys(metric for _, attack in ran for metric in attack.leakage), bounds)
    found = []
    for metric in metrics:
        measured = [(cut, attack.leakage[metric].mean) for cut, attack in ran if metric in attack.leakage]
        cut, most = max(measured, key=lambda pair: pair[1])
        chosen = next((mean for other, mean in measured if other.chosen), None)
        found.append(Reach(metric_title(metric), score(most), cut, None if chosen is None else score(chosen)))
    return tuple(found)


def _lines(name: str, ran: Sequence[tuple[CutView, AttackRead]], cuts: Sequence[CutView]) -> tuple[str, ...]:
    lines = []
    stopped = [cut for cut, attack in ran if not attack.converged and cut.measured and cut.measured.cut_short]
    settled = [cut for cut, attack in ran if attack.converged]
    if ran:
        where = "every cut where it ran" if len(settled) == len(ran) else name_cuts(settled)
        lines.append(f"Converged at {where}." if settled else "Converged nowhere.")
    if stopped:
        lines.append(f"Stopped at {name_cuts(stopped)}: beyond the bounds with a small budget already.")
    waiting: dict[str, list[CutView]] = {}
    for cut, attack in ran:
        if not attack.converged and cut not in stopped:
            waiting.setdefault(budget_words(attack.next_budget), []).append(cut)
    lines += [
        f"Still gaining at {name_cuts(where)}: " + (f"try {more} next." if more else "try a larger budget next.")
        for more, where in waiting.items()
    ]
    few = sorted({attack.heldout_items for _, attack in ran if attack.heldout_items is not None})
    if few:
        lines.append(f"Too slow for all held-out items: it inverted {' or '.join(map(str, few))} of them.")
    missing = [
        cut for cut in cuts
        if cut.measured and cut.measured.cut_short and name not in {*cut.measured.attacks, *cut.measured.declined}
    ]  # fmt: skip
    if missing and name != DOWNSTREAM:
        lines.append(f"Not run at {name_cuts(missing)}, given up before its turn.")
    return tuple(lines)


def _declined(name: str, cuts: Sequence[CutView]) -> tuple[tuple[str, str], ...]:
    """Return the cuts where an attack could not be mounted, with the reason; cuts of one reason together."""
    reasons: dict[str, list[CutView]] = {}
    for cut in cuts:
        if cut.measured and name in cut.measured.declined:
            reasons.setdefault(clean(cut.measured.declined[name]), []).append(cut)
    return tuple((name_cuts(where), reason) for reason, where in reasons.items())


def _sweep(cut: CutView, attack: AttackRead, bounds: Sequence[str]) -> Sweep:
    return Sweep(
        cut=cut,
        rungs=tuple(
            (
                budget_words({"attacker_items": rung.attacker_items, "steps": rung.steps, "width": rung.width}),
                tuple((metric_title(name), score(rung.mean[name])) for name in in_policy_order(rung.mean, bounds)),
            )
            for rung in attack.rungs
        ),
    )
