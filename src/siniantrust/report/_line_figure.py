"""A picture of a few lines over steps or epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from siniantrust.report._axis import Key
from siniantrust.report._svg import INK, MARKERS, MUTED, PALETTE, draw
from siniantrust.report._text import clean, short

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

_MARKED_POINTS = 40
_MARGINS = {"left": 0.14, "right": 0.98, "top": 0.97, "bottom": 0.14}


@dataclass(frozen=True)
class Line:
    """A line's entry in the legend, and its points."""

    key: Key
    points: tuple[tuple[float, float], ...]


def make_lines(named: Mapping[str, Sequence[tuple[float, float]]]) -> list[Line]:
    """Return a line for each name, in the order given, each with a colour and a marker of its own."""
    return [
        Line(Key(clean(name), PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]), tuple(points))
        for index, (name, points) in enumerate(named.items())
    ]


def line_figure(
    key: str,
    lines: Sequence[Line],
    *,
    across: str,
    up: str,
    marked: tuple[float, str] | None = None,
    levels: Mapping[str, float] | None = None,
) -> Markup:
    """Return the picture of ``lines``, with a named place along the bottom and named levels where given."""

    def draw_on(figure: Figure) -> None:
        axes = figure.subplots()
        for line in lines:
            xs, ys = zip(*line.points, strict=True)
            few = len(xs) <= _MARKED_POINTS
            axes.plot(xs, ys, color=line.key.colour, lw=1.6, marker=line.key.marker if few else None, ms=4.5, mew=0)
        if marked is not None:
            axes.axvline(marked[0], color=INK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=0)
            axes.text(marked[0], 0.5, marked[1], color=INK, ha="right", va="center", fontsize=8.5, rotation=90,
                      transform=axes.get_xaxis_transform())  # fmt: skip
        for name, level in (levels or {}).items():
            axes.axhline(level, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), zorder=0)
            axes.text(0.99, level, short(name, 40), color=MUTED, ha="right", va="bottom", fontsize=8.5,
                      style="italic", transform=axes.get_yaxis_transform())  # fmt: skip
        axes.margins(y=0.12)
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.grid(axis="y")
        axes.tick_params(length=0)

    said = "; ".join(
        f"{line.key.title} from {line.points[0][1]:.3g} at {line.points[0][0]:g} to {line.points[-1][1]:.3g} at "
        f"{line.points[-1][0]:g}"
        for line in lines
    )
    at = "".join(f" {clean(name)} {level:.3g}." for name, level in (levels or {}).items())
    alt = f"{up} by {across}: {said}.{f' {marked[1]}: {marked[0]:g}.' if marked else ''}{at}"
    return draw(key, draw_on, width=5.4, height=3.4, alt=alt, margins=_MARGINS)
