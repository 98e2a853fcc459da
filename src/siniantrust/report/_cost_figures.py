"""Pictures of time: where one request's latency goes, and how stages overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siniantrust.report._costs import CostRow, Costs, trusted_places
from siniantrust.report._load import Sources
from siniantrust.report._svg import EDGE, GRID, INK, MUTED, PAPER, TRUSTED, UNTRUSTED, draw
from siniantrust.report._text import clean, seconds

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

_NEUTRAL = ("#56708a", "#8aa0b5", "#3d4f61", "#b3c0cc", "#6d6a8a", "#a7a2c4", "#2b6c8f", "#7fb0c9")
_ITEMS = 12
# Neighbouring requests take turns between two shades; white figures can be read on both.
_TRUSTED_SHADES = (TRUSTED, "#2f837c")
_UNTRUSTED_SHADES = (UNTRUSTED, "#c06a26")
_OTHER_SHADES = ("#56708a", "#6f8299")


def cost_figure(sources: Sources, costs: Costs) -> Markup:
    """Return one stacked bar for the prediction and, where measured, for the run and the uncut model."""
    plan, run = sources.plan, sources.run
    colours = _colours(sources, costs.rows)
    bars: list[tuple[str, float, list[tuple[float, str]]]] = [
        (
            "predicted",
            plan.prediction.latency_s,
            [(row.predicted_s, colour) for row, colour in zip(costs.rows, colours, strict=True) if row.predicted_s],
        )
    ]
    if run is not None:
        bars.append(
            (
                "measured",
                run.measured.latency_s,
                [(row.measured_s, colour) for row, colour in zip(costs.rows, colours, strict=True) if row.measured_s],
            )
        )
        if run.uncut_latency_s is not None:
            bars.append(("uncut model", run.uncut_latency_s, [(run.uncut_latency_s, GRID)]))

    def draw_on(figure: Figure) -> None:
        axes = figure.subplots()
        longest = max(max(total, sum(width for width, _ in pieces)) for _, total, pieces in bars)
        for row, (_, total, pieces) in enumerate(bars):
            left = 0.0
            for width, colour in pieces:
                axes.barh(row, width * 1e3, left=left * 1e3, height=0.56, color=colour, edgecolor=PAPER, lw=0.8)
                left += width
            axes.text(
                max(left, total) * 1e3 + longest * 12, row, seconds(total), va="center", fontsize=10.0, color=INK,
                fontweight="bold",
            )  # fmt: skip
        axes.set_yticks(range(len(bars)), [name for name, _, _ in bars], fontsize=10.0, color=INK)
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_xlim(0, longest * 1e3 * 1.14 or 1.0)
        axes.set_xlabel("latency of one request, ms")
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.tick_params(length=0)

    alt = "Latency of one request: " + ", ".join(f"{name} {seconds(total)}" for name, total, _ in bars) + "."
    return draw("costs", draw_on, width=9.6, height=0.9 + 0.52 * len(bars), alt=alt)


def timeline_figure(sources: Sources) -> Markup | None:
    """Return the first items' way through the stages of the pipeline; None where the run kept no timeline."""
    if sources.run is None or not sources.run.timeline:
        return None
    spans = [span for span in sources.run.timeline if span.item < _ITEMS]
    stages = list(dict.fromkeys(span.stage for span in spans))
    if not stages:
        return None
    rows = sorted({(span.stage, span.device) for span in spans}, key=lambda row: (stages.index(row[0]), row[1]))
    names = [clean(f"{stage} on {device}" if device else stage) for stage, device in rows]
    places = trusted_places(sources)

    def draw_on(figure: Figure) -> None:
        axes = figure.subplots()
        for span in spans:
            trusted = places.get(span.stage)
            shades = _OTHER_SHADES if trusted is None else _TRUSTED_SHADES if trusted else _UNTRUSTED_SHADES
            width = max(span.end_s - span.start_s, 0.0) * 1e3
            row = rows.index((span.stage, span.device))
            if span.ready_s is not None:
                axes.plot([span.ready_s * 1e3, span.start_s * 1e3], [row, row], color=EDGE, lw=2.0, zorder=1)
            axes.barh(
                row, width, left=span.start_s * 1e3, height=0.6, color=shades[span.item % 2], edgecolor=PAPER,
                lw=0.8,
            )  # fmt: skip
        whole = max(span.end_s for span in spans) - min(span.start_s for span in spans)
        for span in spans:
            if span.end_s - span.start_s > 0.03 * whole:
                centre = (span.start_s + span.end_s) / 2 * 1e3
                axes.text(centre, rows.index((span.stage, span.device)), str(span.item + 1), ha="center", va="center",
                          color=PAPER, fontsize=9.0)  # fmt: skip
        axes.set_yticks(range(len(rows)), names, fontsize=10.0, color=INK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("time since the run began, ms (numbers are requests)")
        axes.xaxis.label.set_color(MUTED)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.tick_params(length=0)

    alt = f"Timeline of {len({span.item for span in spans})} requests through the stages {', '.join(names)}."
    return draw("timeline", draw_on, width=9.6, height=0.9 + 0.46 * len(rows), alt=clean(alt))


def term_colours(sources: Sources, costs: Costs) -> list[str]:
    """Return each term's colour in the bar picture, for the table beside it."""
    return _colours(sources, costs.rows)


def _colours(sources: Sources, rows: Sequence[CostRow]) -> list[str]:
    """Give compute the colour of its side of the trust boundary, and every other term a quiet one of its own."""
    places = trusted_places(sources)
    colours = []
    for index, row in enumerate(rows):
        side = places.get(row.where)
        if "compute" in row.what.lower() and side is not None:
            colours.append(TRUSTED if side else UNTRUSTED)
        else:
            colours.append(_NEUTRAL[index % len(_NEUTRAL)])
    return colours
