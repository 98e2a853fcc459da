"""Pictures of screens against attacks: does a screen's score tell how much the best attack gets?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from siniantrust.report._audit_input import ScreenSummaryRead
from siniantrust.report._axis import Key, metrics_of
from siniantrust.report._cuts import CutView
from siniantrust.report._load import Sources
from siniantrust.report._screens import screen_keys
from siniantrust.report._svg import INK, MUTED, PAPER, RISK, draw
from siniantrust.report._text import metric_title, score, short

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3
_APART = 0.09


def screen_figures(sources: Sources, cuts: Sequence[CutView]) -> list[tuple[str, Markup]]:
    """Return, per metric that the policy limits, its name and a scatter for every screen; nothing without screens."""
    audit = sources.audit
    if audit is None or not any(cut.screens for cut in audit.cuts):
        return []
    keys = screen_keys(audit)
    metrics = metrics_of(sources)
    deciding = [metric for metric in metrics if metric in sources.plan.policy.leakage.max] or metrics[:1]
    return [(metric, _scatters(metric, sources, cuts, keys, audit.screens)) for metric in deciding]


def _scatters(
    metric: str,
    sources: Sources,
    cuts: Sequence[CutView],
    keys: dict[str, Key],
    summaries: dict[str, ScreenSummaryRead],
) -> Markup:
    bound = sources.plan.policy.leakage.max.get(metric)
    tips: dict[str, str] = {}
    drawn = {name: key for name, key in keys.items() if any(_points(cuts, name, metric))}
    rows = max(math.ceil(len(drawn) / _COLUMNS), 1)

    def draw_on(figure: Figure) -> None:
        grid = figure.subplots(rows, _COLUMNS, squeeze=False, sharey=True)
        for axes, (name, key) in zip(grid.flat, drawn.items(), strict=False):
            _scatter(axes, name, key, metric, cuts, summaries.get(name), bound, tips)
        for axes in list(grid.flat)[len(drawn) :]:
            axes.set_axis_off()
        for axes in grid[:, 0]:
            axes.set_ylabel("best attack's leakage")

    described = "; ".join(
        f"{key.title}: rank correlation {score(_correlation(summaries.get(name), metric))}"
        for name, key in drawn.items()
    )
    alt = f"Every screen's score against the best attack's leakage by {metric_title(metric)}, a dot for each cut."
    height = 0.2 + 2.5 * rows
    return draw(
        f"screens-{metric}", draw_on, width=9.6, height=height, alt=f"{alt} {described}.", tips=tips,
        margins={"left": 0.065, "right": 0.99, "top": 1 - 0.48 / height, "bottom": 0.5 / height, "wspace": 0.09,
                 "hspace": 0.62},
    )  # fmt: skip


def _scatter(
    axes: Axes,
    name: str,
    key: Key,
    metric: str,
    cuts: Sequence[CutView],
    summary: ScreenSummaryRead | None,
    bound: float | None,
    tips: dict[str, str],
) -> None:
    from matplotlib.ticker import MaxNLocator

    points = _points(cuts, name, metric)
    if bound is not None:
        axes.axhline(bound, color=RISK, linewidth=1.2, zorder=1)
    picked = None if summary is None else summary.plateau_cut_id
    for cut, x, y in points:
        gid = f"tip-{name}-{cut.number}"
        settled = cut.measured is not None and cut.measured.settled
        tips[gid] = f"cut {cut.number} {cut.label}: {key.title} {score(x)}, best attack {score(y)}"
        axes.plot(
            x, y, marker=key.marker, ms=6.0, mew=1.3, ls="", color=key.colour,
            markerfacecolor=key.colour if settled else PAPER, gid=gid, zorder=3,
        )  # fmt: skip
    _names(axes, points, picked, key.colour)
    axes.set_title(
        f"{short(key.title, 36)}\nrank correlation {score(_correlation(summary, metric))}", fontsize=9.5, loc="left"
    )
    axes.set_ylim(-0.08, 1.14)
    axes.margins(x=0.14)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="both")
    axes.tick_params(length=0)
    axes.set_xlabel("screen's score", fontsize=9.0, color=MUTED)


def _names(axes: Axes, points: Sequence[tuple[CutView, float, float]], picked: str | None, colour: str) -> None:
    """Ring the screen's pick and say what leaks there; number the other cuts as far as they stand apart."""
    if not points:
        return
    low, high = min(x for _, x, _ in points), max(x for _, x, _ in points)
    spread = (high - low) or 1.0
    named: list[tuple[float, float]] = []
    for cut, x, y in sorted(points, key=lambda point: point[0].id != picked):
        if cut.id == picked:
            side = -1 if x > (low + high) / 2 else 1
            axes.plot(x, y, marker="o", ms=17, mew=2.0, ls="", markerfacecolor="none", color=colour, zorder=4)
            axes.annotate(
                f"picks {cut.number}: {score(y)}", (x, y), textcoords="offset points", fontsize=9.0, color=INK,
                fontweight="bold", xytext=(13 * side, 10), ha="left" if side > 0 else "right", zorder=5,
                bbox={"facecolor": PAPER, "alpha": 0.75, "edgecolor": "none", "pad": 1.0},
            )  # fmt: skip
        elif any(abs(x - a) < _APART * spread and abs(y - b) < _APART for a, b in named):
            continue
        else:
            axes.annotate(str(cut.number), (x, y), textcoords="offset points", xytext=(5, 3), fontsize=8.0, color=MUTED)
        named.append((x, y))


def _points(cuts: Sequence[CutView], name: str, metric: str) -> list[tuple[CutView, float, float]]:
    """Return each cut where both were measured, the screen's score and the best attack's mean leakage."""
    return [
        (cut, cut.measured.screens[name].score, cut.measured.leakage[metric].mean)
        for cut in cuts
        if cut.measured and name in cut.measured.screens and metric in cut.measured.leakage
    ]


def _correlation(summary: ScreenSummaryRead | None, metric: str) -> float | None:
    return summary.rank_correlation.get(metric) if summary else None
