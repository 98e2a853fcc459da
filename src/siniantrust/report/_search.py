"""A search's front as figures in words, and as pictures of leakage against accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from siniantrust.report._load import Sources
from siniantrust.report._svg import EDGE, HALO, PAPER, RISK, TRUSTED, UNTRUSTED, WITHIN, draw
from siniantrust.report._text import clean, count, metric_title, percent, score, size
from siniantrust.report._tune_input import REIDENTIFICATION, PointRead, TuningRead

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SMALLEST, _LARGEST = 4.0, 15.0


@dataclass(frozen=True)
class SearchView:
    """A search. ``figures`` are (caption, picture); ``nearest`` is the point whose worst figure is least beyond."""

    record: TuningRead
    chosen: PointRead | None
    front: tuple[PointRead, ...]
    metrics: tuple[str, ...]
    nearest: PointRead
    excess: float
    figures: tuple[tuple[str, Markup], ...]


def view_search(sources: Sources) -> SearchView | None:
    """Return the search; None where none was given."""
    tuning, chosen = sources.lineage.tuning, sources.lineage.chosen
    if tuning is None:
        return None
    nearest = min(tuning.points, key=lambda point: point.excess(tuning.limits))
    return SearchView(
        record=tuning,
        chosen=chosen,
        front=tuple(sorted((point for point in tuning.points if point.on_front), key=_highest)),
        metrics=tuple(dict.fromkeys(metric for point in tuning.points for metric in point.leakage)),
        nearest=nearest,
        excess=nearest.excess(tuning.limits),
        figures=tuple(_figures(tuning, chosen)),
    )


def _highest(point: PointRead) -> float:
    return max(point.leakage.values())


def _figures(tuning: TuningRead, chosen: PointRead | None) -> list[tuple[str, Markup]]:
    """Return a picture of re-identification, which has a limit of its own, and one of the highest other leakage."""
    sides: list[tuple[str, str, float, list[tuple[PointRead, float]]]] = [
        ("search-other", "Highest leakage but re-identification", tuning.limits.leakage, []),
        ("search-again", metric_title(REIDENTIFICATION), tuning.limits.reidentification, []),
    ]
    for point in tuning.points:
        others = [value for metric, value in point.leakage.items() if metric != REIDENTIFICATION]
        if others:
            sides[0][3].append((point, max(others)))
        if REIDENTIFICATION in point.leakage:
            sides[1][3].append((point, point.leakage[REIDENTIFICATION]))
    return [
        (title, _figure(key, title, places, tuning, limit, chosen)) for key, title, limit, places in sides if places
    ]


def _figure(
    key: str,
    title: str,
    places: Sequence[tuple[PointRead, float]],
    tuning: TuningRead,
    limit: float,
    chosen: PointRead | None,
) -> Markup:
    tips = {f"trial-{point.number}": _tip(point, value) for point, value in places}
    least = 100 * tuning.accuracy_original - tuning.limits.lost_points

    def draw_on(figure: Figure) -> None:
        axes = figure.subplots()
        largest = max(point.size_bytes for point, _ in places) or 1
        for point, value in sorted(places, key=lambda place: -place[0].size_bytes):
            scale = (point.size_bytes / largest) ** 0.5
            _point(axes, point, value, size=_SMALLEST + (_LARGEST - _SMALLEST) * scale, chosen=point == chosen)
        axes.margins(x=0.1, y=0.12)
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        axes.set_ylim(min(bottom, 0.0), max(top, limit * 1.1))
        axes.axvspan(least, 200, ymax=_share(limit, axes.get_ylim()), color=WITHIN, zorder=-2, linewidth=0)
        axes.set_xlim(left, max(right, 100 * tuning.accuracy_original))
        axes.axhline(limit, color=RISK, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
        axes.axvline(least, color=RISK, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
        axes.set_xlabel("accuracy on held-out items, %")
        axes.set_ylabel("leakage, upper bound")
        axes.grid(axis="both")
        axes.tick_params(length=0)

    alt = f"{title} against accuracy of {len(places)} trials. " + "; ".join(
        _tip(point, value) for point, value in places if point.on_front
    )
    return draw(key, draw_on, width=5.4, height=3.9, alt=alt, tips=tips)


def _share(value: float, limits: tuple[float, float]) -> float:
    """Return where ``value`` stands between ``limits``."""
    return (value - limits[0]) / (limits[1] - limits[0])


def _point(axes: Axes, point: PointRead, value: float, *, size: float, chosen: bool) -> None:
    """Draw a trial: green within the limits, orange beyond; filled on the front, hollow and grey behind it."""
    place = 100 * point.accuracy, value
    if chosen:
        axes.plot(*place, marker="o", ms=size + 9, mew=0, ls="", color=HALO, zorder=1)
    colour = (TRUSTED if point.within else UNTRUSTED) if point.on_front else EDGE
    axes.plot(
        *place, marker="o", ms=size, mew=1.4, ls="", color=colour, zorder=3 if point.on_front else 2,
        markerfacecolor=colour if point.on_front else PAPER, gid=f"trial-{point.number}",
    )  # fmt: skip


def _tip(point: PointRead, value: float) -> str:
    return clean(
        f"trial {point.number}, {mask_words(point)} at {point.cut}: leakage {score(value)}, accuracy "
        f"{percent(point.accuracy)}, {count(point.flops)} FLOPs, {size(point.size_bytes)}"
    )


def mask_words(point: PointRead) -> str:
    """Name a trial's mask with its strength, and what it was trained with."""
    mask = point.mask if point.strength == 0 else f"{point.mask} {point.strength:.2g}"
    return mask if point.penalty == "none" else f"{mask}, trained with {point.penalty}"
