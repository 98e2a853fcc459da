"""Pictures of leakage along the model: the attacks per metric, and the screens beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from siniantrust.report._cuts import CutView
from siniantrust.report._inputs import AuditRead, EstimateRead, ScreenSummaryRead
from siniantrust.report._load import Sources
from siniantrust.report._svg import INK, MARKERS, MUTED, PALETTE, RISK, draw
from siniantrust.report._text import clean, in_policy_order, metric_title, score, short

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED_TICKS = 14
_MANY_TICKS = 26
_ASIDE = 0.14
_GREY = "#9aa3ad"


@dataclass(frozen=True)
class Key:
    """An entry of a legend that HTML draws: a colour and one of matplotlib's marker letters."""

    title: str
    colour: str
    marker: str


@dataclass(frozen=True)
class ScreenRow:
    """A screen in the table: the cut that its rule would take, and what the best attack got there."""

    key: Key
    source: str
    plateau: CutView | None
    leakage_there: tuple[tuple[str, float, bool], ...]
    correlations: tuple[float | None, ...]


def attack_keys(audit: AuditRead) -> dict[str, Key]:
    """Return the legend of the attacks, in the order of the audit; names used at a cut only come last."""
    names = dict.fromkeys((*audit.attacks, *(name for cut in audit.cuts for name in cut.attacks)))
    return {
        name: Key(
            clean(audit.attacks[name].title if name in audit.attacks else name),
            PALETTE[index % len(PALETTE)],
            MARKERS[index % len(MARKERS)],
        )
        for index, name in enumerate(names)
    }


def metrics_of(sources: Sources) -> list[str]:
    """Return the audit's metrics, those that the policy limits first."""
    bounds = sources.plan.policy.leakage.max
    found = {metric for cut in (sources.audit.cuts if sources.audit else ()) for metric in cut.leakage}
    return in_policy_order(found, bounds)


def attack_figures(sources: Sources, cuts: Sequence[CutView]) -> list[tuple[str, Markup]]:
    """Return, per metric, its title and the curve of every attack with bars up to the upper bound."""
    audit = sources.audit
    if audit is None:
        return []
    keys = attack_keys(audit)
    shown = on_axis(cuts)
    return [
        (metric, _attack_figure(metric, shown, keys, sources.plan.policy.leakage.max.get(metric)))
        for metric in metrics_of(sources)
    ]


def _attack_figure(metric: str, cuts: Sequence[CutView], keys: dict[str, Key], bound: float | None) -> Markup:
    tips: dict[str, str] = {}
    places = _places(cuts)

    def draw_on(figure: Figure) -> None:
        axes = figure.subplots()
        mark_chosen(axes, cuts)
        if bound is not None:
            axes.axhline(bound, color=RISK, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
            axes.text(
                0.995, bound, f"policy bound {score(bound)}", color=RISK, ha="right", va="bottom", fontsize=9.0,
                transform=axes.get_yaxis_transform(),
            )  # fmt: skip
        for rank, (name, key) in enumerate(keys.items()):
            # Side by side, so that attackers who get the same do not hide each other.
            aside = _ASIDE * (rank - (len(keys) - 1) / 2)
            points = [
                (
                    places[cut.number] + aside,
                    cut,
                    cut.measured.attacks[name].leakage[metric],
                    cut.measured.attacks[name].converged,
                )
                for cut in cuts
                if cut.measured and name in cut.measured.attacks and metric in cut.measured.attacks[name].leakage
            ]
            if points:
                _attack_line(axes, name, key, points, tips)
        axes.set_ylim(-0.06, 1.06)
        axes.set_ylabel("leakage: 0 guess, 1 perfect copy")
        cut_axis(axes, cuts)

    described = "; ".join(
        f"cut {cut.number}: best attack {score(cut.measured.leakage[metric].mean)}, upper bound "
        f"{score(cut.measured.leakage[metric].upper)}"
        for cut in cuts
        if cut.measured and metric in cut.measured.leakage
    )
    alt = f"Leakage at each cut by {metric_title(metric)}. {described}."
    return draw(f"attack-{metric}", draw_on, width=5.4, height=3.7, alt=alt, tips=tips)


def _attack_line(
    axes: Axes, name: str, key: Key, points: Sequence[tuple[float, CutView, EstimateRead, bool]], tips: dict[str, str]
) -> None:
    axes.plot([x for x, _, _, _ in points], [e.mean for _, _, e, _ in points], color=key.colour, lw=1.4, zorder=2)
    axes.vlines(
        [x for x, _, _, _ in points],
        [estimate.mean for _, _, estimate, _ in points],
        [max(estimate.upper, estimate.mean) for _, _, estimate, _ in points],
        color=key.colour,
        linewidth=1.4,
        zorder=2,
    )
    size = 6.5 if len(points) <= _NAMED_TICKS else 4.5
    for x, cut, estimate, converged in points:
        gid = f"tip-{name}-{cut.number}"
        tips[gid] = (
            f"cut {cut.number} {cut.label}, {key.title}: mean {score(estimate.mean)}, upper {score(estimate.upper)}"
            + ("" if converged else ", not converged")
        )
        axes.plot(
            x, estimate.mean, marker=key.marker, ms=size, mew=1.4, ls="", gid=gid, zorder=3,
            color=key.colour, markerfacecolor=key.colour if converged else "#ffffff",
        )  # fmt: skip


def screen_figure(sources: Sources, cuts: Sequence[CutView]) -> Markup | None:
    """Return every screen's score, each scaled to its own range, over the best attack; None without screens."""
    audit = sources.audit
    if audit is None or not audit.screens:
        return None
    metric = next(iter(metrics_of(sources)), None)
    keys = screen_keys(audit)
    cuts = on_axis(cuts)
    places = _places(cuts)

    def draw_on(figure: Figure) -> None:
        axes = figure.subplots()
        mark_chosen(axes, cuts)
        best = [
            (places[cut.number], cut.measured.leakage[metric].mean)
            for cut in cuts
            if metric and cut.measured and metric in cut.measured.leakage
        ]
        if best:
            axes.fill_between(*_columns(_scaled(best)), color="#e4e7eb", zorder=0, linewidth=0)
            axes.text(
                best[0][0], 0.04, " best attack", color=MUTED, fontsize=9.0, va="bottom", ha="left", style="italic"
            )
        for name, key in keys.items():
            scored = [
                (places[cut.number], cut.measured.screens[name].score)
                for cut in cuts
                if cut.measured and name in cut.measured.screens
            ]
            points = _scaled(scored)
            if not points:
                continue
            axes.plot(*_columns(points), color=key.colour, marker=key.marker, ms=4.5, lw=1.4, zorder=2)
            plateau = audit.screens[name].plateau_cut_id if name in audit.screens else None
            for cut in cuts:
                if cut.id == plateau and places[cut.number] in dict(points):
                    axes.plot(
                        places[cut.number], dict(points)[places[cut.number]], marker="o", ms=14, mew=2.0, ls="",
                        markerfacecolor="none", color=key.colour, zorder=3,
                    )  # fmt: skip
        axes.set_ylim(-0.08, 1.1)
        axes.set_ylabel("screen's score, scaled to 0..1")
        cut_axis(axes, cuts)

    picks = "; ".join(
        f"{key.title} would cut at {_name_of(audit.screens[name], cuts)}"
        for name, key in keys.items()
        if name in audit.screens
    )
    alt = f"Screens at each cut, each scaled to its own range, over the best attack. {picks}."
    return draw("screens", draw_on, width=9.6, height=3.9, alt=alt)


def screen_keys(audit: AuditRead) -> dict[str, Key]:
    """Return the legend of the screens."""
    names = dict.fromkeys((*audit.screens, *(name for cut in audit.cuts for name in cut.screens)))
    return {
        name: Key(
            clean(audit.screens[name].title if name in audit.screens else name),
            PALETTE[index % len(PALETTE)],
            MARKERS[index % len(MARKERS)],
        )
        for index, name in enumerate(names)
    }


def screen_rows(sources: Sources, cuts: Sequence[CutView]) -> list[ScreenRow]:
    """Return the table of screens; the correlations come in the order of ``metrics_of``."""
    audit = sources.audit
    if audit is None:
        return []
    bounds = sources.plan.policy.leakage.max
    metrics = metrics_of(sources)
    keys = screen_keys(audit)
    rows = []
    for name, summary in audit.screens.items():
        plateau = next((cut for cut in cuts if cut.id == summary.plateau_cut_id), None)
        there = plateau.measured.leakage if plateau and plateau.measured else {}
        rows.append(
            ScreenRow(
                key=keys[name],
                source=clean(summary.source),
                plateau=plateau,
                leakage_there=tuple(
                    (metric_title(metric), there[metric].mean, there[metric].upper > bounds.get(metric, 1e9))
                    for metric in metrics
                    if metric in there
                ),
                correlations=tuple(summary.rank_correlation.get(metric) for metric in metrics),
            )
        )
    return rows


def on_axis(cuts: Sequence[CutView]) -> list[CutView]:
    """Return the cuts that a chart has figures for, and the chosen ones; they stand at even distances."""
    return [cut for cut in cuts if cut.measured is not None or cut.chosen]


def _places(cuts: Sequence[CutView]) -> dict[int, int]:
    """Return each cut's place on the axis by its number."""
    return {cut.number: place for place, cut in enumerate(cuts, start=1)}


def mark_chosen(axes: Axes, cuts: Sequence[CutView]) -> None:
    """Shade the plan's own cuts."""
    for place, cut in enumerate(cuts, start=1):
        if cut.chosen:
            axes.axvspan(place - 0.4, place + 0.4, color="#fff0c2", zorder=-1, linewidth=0)


def cut_axis(axes: Axes, cuts: Sequence[CutView]) -> None:
    """Number the cuts along the bottom; few cuts get their names, very many only every other number."""
    axes.set_xlim(0.4, len(cuts) + 0.6)
    step = 1 + max(len(cuts) - 1, 0) // _MANY_TICKS
    labelled = list(enumerate(cuts, start=1))[::step]
    places = [place for place, _ in labelled]
    if len(cuts) <= _NAMED_TICKS:
        names = [f"{cut.number} {short(cut.label, 18)}" for _, cut in labelled]
        axes.set_xticks(places, names, rotation=38, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(places, [str(cut.number) for _, cut in labelled])
        axes.set_xlabel("cut (numbers as in the strip above)")
    for tick, (_, cut) in zip(axes.get_xticklabels(), labelled, strict=False):
        if cut.chosen:
            tick.set_color(INK)
            tick.set_fontweight("bold")
    axes.grid(axis="y")
    axes.tick_params(length=0)


def _scaled(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Scale values to 0..1; values that are all equal become 0.5."""
    values = [value for _, value in points]
    low, spread = min(values, default=0.0), max(values, default=0.0) - min(values, default=0.0)
    return [(number, (value - low) / spread if spread else 0.5) for number, value in points]


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [number for number, _ in points], [value for _, value in points]


def _name_of(summary: ScreenSummaryRead, cuts: Sequence[CutView]) -> str:
    found = next((cut for cut in cuts if cut.id == summary.plateau_cut_id), None)
    return f"cut {found.number}" if found else "no cut"
