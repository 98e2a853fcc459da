"""Screens beside the attacks: a picture of their scores, and a table of what each would have decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from siniantrust.report._audit_input import AuditRead, ScreenSummaryRead
from siniantrust.report._axis import Key, cut_axis, legend_keys, mark_chosen, metrics_of, on_axis, places_of
from siniantrust.report._cuts import CutView
from siniantrust.report._load import Sources
from siniantrust.report._svg import MUTED, draw
from siniantrust.report._text import clean, metric_title

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ScreenRow:
    """A screen in the table: the cut that its rule would take, and what the best attack got there."""

    key: Key
    source: str
    plateau: CutView | None
    leakage_there: tuple[tuple[str, float, bool], ...]
    correlations: tuple[float | None, ...]


def screen_figure(sources: Sources, cuts: Sequence[CutView]) -> Markup | None:
    """Return every screen's score, each scaled to its own range, over the best attack; None without screens."""
    audit = sources.audit
    if audit is None or not audit.screens:
        return None
    metric = next(iter(metrics_of(sources)), None)
    keys = screen_keys(audit)
    cuts = on_axis(cuts)
    places = places_of(cuts)

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
    return legend_keys(audit.screens, (name for cut in audit.cuts for name in cut.screens))


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
