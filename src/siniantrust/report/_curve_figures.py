"""Pictures of leakage along the model: one for each metric, the best attack with its band over every attack's line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from siniantrust.report._audit_input import AuditRead, EstimateRead
from siniantrust.report._axis import Key, cut_axis, has_names, legend_keys, mark_chosen, metrics_of, on_axis, places_of
from siniantrust.report._cuts import CutView
from siniantrust.report._load import Sources
from siniantrust.report._svg import BAND, INK, MUTED, PAPER, RISK, draw
from siniantrust.report._text import clean, metric_title, score, short

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MANY_POINTS = 14
_FLOOR, _CEILING = -0.06, 1.06


def attack_keys(audit: AuditRead) -> dict[str, Key]:
    """Return the legend of the attacks."""
    return legend_keys(audit.attacks, (name for cut in audit.cuts for name in cut.attacks))


def curve_figures(sources: Sources, cuts: Sequence[CutView]) -> list[tuple[str, Markup]]:
    """Return, per metric, its name and the picture of its leakage over depth; nothing without an audited cut."""
    audit = sources.audit
    if audit is None:
        return []
    keys = attack_keys(audit)
    shown = on_axis(cuts)
    bounds = sources.plan.policy.leakage.max
    return [(metric, _curve(metric, shown, keys, bounds.get(metric), audit)) for metric in metrics_of(sources)]


def state_words(cut: CutView) -> str:
    """Say how final a cut's figures are; nothing where they are."""
    if cut.measured is None or cut.measured.settled:
        return ""
    return "given up early, at least this" if cut.measured.cut_short else "not converged"


def _curve(metric: str, cuts: Sequence[CutView], keys: dict[str, Key], bound: float | None, audit: AuditRead) -> Markup:
    tips: dict[str, str] = {}
    places = places_of(cuts)
    best = [(cut, cut.measured.leakage[metric]) for cut in cuts if cut.measured and metric in cut.measured.leakage]
    levels = {name: prior.leakage[metric].mean for name, prior in audit.priors.items() if metric in prior.leakage}

    def draw_on(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_ylim(_FLOOR, _CEILING)
        mark_chosen(axes, cuts)
        _levels(axes, levels, bound)
        for name, key in keys.items():
            _thin_line(axes, name, key, metric, cuts, places)
        xs = [places[cut.number] for cut, _ in best]
        axes.fill_between(
            xs, [_low(estimate) for _, estimate in best], [_high(estimate) for _, estimate in best],
            color=BAND, alpha=0.65, zorder=1, linewidth=0,
        )  # fmt: skip
        if len(best) == 1:
            axes.vlines(xs, _low(best[0][1]), _high(best[0][1]), color=BAND, linewidth=9, zorder=1)
        axes.plot(xs, [estimate.mean for _, estimate in best], color=INK, lw=2.0, zorder=3)
        for cut, estimate in best:
            gid = f"tip-{cut.number}"
            tips[gid] = _tip(cut, metric, estimate, keys)
            _point(axes, places[cut.number], cut, estimate, metric=metric, gid=gid, many=len(best) > _MANY_POINTS)
        axes.set_ylabel("leakage: 0 guess, 1 perfect copy")
        cut_axis(axes, cuts)

    described = "; ".join(
        f"cut {cut.number}: {score(estimate.mean)}, upper bound {score(estimate.upper)}"
        + (f", {state_words(cut)}" if state_words(cut) else "")
        for cut, estimate in best
    )
    known = "; ".join(f"{clean(name)} prior {score(level)}" for name, level in levels.items())
    alt = f"Best attack's leakage at each cut by {metric_title(metric)}. {described}.{f' {known}.' if known else ''}"
    return draw(f"curve-{metric}", draw_on, width=5.4, height=3.9, alt=alt, tips=tips, margins=_margins(cuts))


def _margins(cuts: Sequence[CutView]) -> dict[str, float]:
    """Leave room below for slanted names where the axis has them, else for numbers."""
    return {"left": 0.12, "right": 0.99, "top": 0.98, "bottom": 0.29 if has_names(cuts) else 0.14}


def _levels(axes: Axes, levels: Mapping[str, float], bound: float | None) -> None:
    """Draw the policy's line, named on the right, and those of the priors, named on the left in two columns."""
    across = axes.get_yaxis_transform()
    if bound is not None:
        axes.axhline(bound, color=RISK, linewidth=1.4, zorder=2)
        axes.text(0.995, bound, f"policy {score(bound)}", color=RISK, ha="right", va="bottom", fontsize=9.0,
                  transform=across, zorder=5)  # fmt: skip
    for index, (name, level) in enumerate(levels.items()):
        axes.axhline(level, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), zorder=2)
        axes.text(0.01 + 0.32 * (index % 2), level, f"{short(name, 20)} {score(level)}", color=MUTED, ha="left",
                  va="bottom", fontsize=8.5, style="italic", transform=across, zorder=5)  # fmt: skip


def _thin_line(
    axes: Axes, name: str, key: Key, metric: str, cuts: Sequence[CutView], places: Mapping[int, int]
) -> None:
    points = [
        (places[cut.number], cut.measured.attacks[name].leakage[metric].mean)
        for cut in cuts
        if cut.measured and name in cut.measured.attacks and metric in cut.measured.attacks[name].leakage
    ]
    if points:
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, color=key.colour, lw=1.0, marker=key.marker, ms=3.8, mew=0, zorder=2)


def _point(axes: Axes, place: int, cut: CutView, estimate: EstimateRead, *, metric: str, gid: str, many: bool) -> None:
    """Mark the best attack: filled where final, hollow where it may rise, an arrowhead up where it was given up."""
    settled = cut.measured is not None and cut.measured.settled_in((metric,))
    short_cut = cut.measured is not None and cut.measured.cut_short is not None
    size = 4.6 if many else 7.0
    axes.plot(
        place, estimate.mean, marker="^" if short_cut else "o", ms=size + (1.5 if short_cut else 0), mew=1.6, ls="",
        color=INK, markerfacecolor=INK if settled else PAPER, gid=gid, zorder=4,
    )  # fmt: skip


def _tip(cut: CutView, metric: str, estimate: EstimateRead, keys: Mapping[str, Key]) -> str:
    name = cut.measured.best_attack[metric] if cut.measured else ""
    state = state_words(cut)
    low = "" if estimate.lower is None else f"lower {score(estimate.lower)}, "
    return (
        f"cut {cut.number} {cut.label}, {keys[name].title}: mean {score(estimate.mean)}, {low}upper "
        f"{score(estimate.upper)}" + (f", {state}" if state else "")
    )


def _low(estimate: EstimateRead) -> float:
    return max(estimate.mean if estimate.lower is None else estimate.lower, _FLOOR)


def _high(estimate: EstimateRead) -> float:
    return min(max(estimate.upper, estimate.mean), _CEILING)
