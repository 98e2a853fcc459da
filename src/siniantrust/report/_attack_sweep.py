"""A small line for one attack at one cut: what each budget reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siniantrust.report._audit_input import RungRead
from siniantrust.report._cuts import CutView
from siniantrust.report._svg import MARKERS, PALETTE, draw
from siniantrust.report._text import budget_words, in_policy_order, metric_title, score

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

_SHORT = {
    "ssim": "SSIM",
    "nmse": "NMSE",
    "reidentification": "re-id.",
    "token": "tokens",
    "attribute": "label",
    "character": "letters",
    "word": "words",
}
_LEAST_APART = 0.11
_MARGINS = {"left": 0.13, "right": 0.99, "top": 0.96, "bottom": 0.36}


def sweep_figure(name: str, cut: CutView, rungs: Sequence[RungRead], bounds: Sequence[str]) -> Markup:
    """Return the leakage by metric over the budgets that were tried, smallest first."""
    metrics = in_policy_order(dict.fromkeys(metric for rung in rungs for metric in rung.mean), bounds)

    def draw_on(figure: Figure) -> None:
        axes = figure.subplots()
        places = range(len(rungs))
        ends: list[tuple[float, str, str]] = []
        for index, metric in enumerate(metrics):
            points = [(place, rung.mean[metric]) for place, rung in zip(places, rungs, strict=True)
                      if metric in rung.mean]  # fmt: skip
            colour = PALETTE[index % len(PALETTE)]
            axes.plot(*zip(*points, strict=True), color=colour, marker=MARKERS[index % len(MARKERS)], ms=5, lw=1.5)
            ends.append((points[-1][1], _SHORT.get(metric, metric_title(metric)), colour))
        level = -1.0
        for value, text, colour in sorted(ends):
            # Names that would lie on each other move up.
            level = max(value, level + _LEAST_APART)
            axes.text(len(rungs) - 1 + 0.08, level, text, color=colour, fontsize=9.5, va="center")
        axes.set_xticks(
            list(places), [f"{rung.attacker_items:,}\n{rung.steps:,}\n{rung.width}" for rung in rungs], fontsize=8.5
        )
        axes.set_xlim(-0.25, len(rungs) - 1 + 0.25 + 0.28 * max(len(rungs) - 1, 1))
        axes.set_ylim(-0.1, 1.1)
        axes.set_yticks([0, 0.5, 1])
        axes.set_xlabel("items learned from / steps / width", fontsize=9.0)
        axes.set_ylabel("leakage", fontsize=9.0)
        axes.grid(axis="y")
        axes.tick_params(length=0)

    described = "; ".join(
        f"{budget_words({'attacker_items': rung.attacker_items, 'steps': rung.steps, 'width': rung.width})}: "
        + ", ".join(f"{metric_title(metric)} {score(rung.mean[metric])}" for metric in metrics if metric in rung.mean)
        for rung in rungs
    )
    alt = f"Leakage over the budgets tried at cut {cut.number}. {described}."
    return draw(f"sweep-{name}", draw_on, width=4.2, height=2.3, alt=alt, margins=_MARGINS)
