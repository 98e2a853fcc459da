"""Pictures of leakage along the model: every attack, one picture for each metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siniantrust.report._audit_input import AuditRead, EstimateRead
from siniantrust.report._axis import Key, cut_axis, legend_keys, mark_chosen, metrics_of, on_axis, places_of
from siniantrust.report._cuts import CutView
from siniantrust.report._load import Sources
from siniantrust.report._svg import RISK, draw
from siniantrust.report._text import metric_title, score

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MANY_POINTS = 14
_ASIDE = 0.14


def attack_keys(audit: AuditRead) -> dict[str, Key]:
    """Return the legend of the attacks."""
    return legend_keys(audit.attacks, (name for cut in audit.cuts for name in cut.attacks))


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
    places = places_of(cuts)

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
    size = 6.5 if len(points) <= _MANY_POINTS else 4.5
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
