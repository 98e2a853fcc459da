"""Latency against leakage: what every candidate costs and what it gives away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siniantrust.report._candidates import Candidate
from siniantrust.report._svg import HALO, INK, MUTED, PAPER, RISK, TRUSTED, UNTRUSTED, WITHIN, draw
from siniantrust.report._text import TIMES, multiple, seconds

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Candidates whose leakage is unknown stand in a lane of their own above the scale.
_LANE = 1.14
_LABELLED = 24
# About the size of the axes and of the chosen candidate's name, in points, for keeping the name off other points.
_WIDTH_POINTS, _HEIGHT_POINTS, _NAME_POINTS = 640, 280, 95


def front_figure(found: Sequence[Candidate]) -> Markup | None:
    """Return the scatter of all candidates; None when there are none."""
    if not found:
        return None
    tips = {f"candidate-{index}": _tip(item) for index, item in enumerate(found)}

    def draw_on(figure: Figure) -> None:
        axes = figure.subplots()
        top = _scale(axes, found)
        front = sorted((item.latency_s * 1e3, item.ratio or 0.0) for item in found if item.on_front)
        if len(front) > 1:
            axes.step(*zip(*front, strict=True), where="post", color=TRUSTED, lw=1.6, zorder=1)
        for index, item in enumerate(found):
            _point(axes, item, top, gid=f"candidate-{index}")
        axes.margins(x=0.08)
        _names(axes, found, top, everyone=len(found) <= _LABELLED)
        axes.set_xlabel("predicted latency of one request, ms")
        axes.set_ylabel("leakage as a multiple of the policy's bound")
        axes.grid(axis="both")
        axes.tick_params(length=0)

    chosen = next((item for item in found if item.chosen), None)
    alt = (
        f"Predicted latency against leakage of {len(found)} candidates, "
        f"{sum(item.refusal is not None for item in found)} of them refused."
        + (f" Chosen: {_tip(chosen)}." if chosen else "")
    )
    return draw("front", draw_on, width=9.6, height=4.6, alt=alt, tips=tips)


def _scale(axes: Axes, found: Sequence[Candidate]) -> float:
    """Set the leakage axis: linear to the bound, then by root, so that both sides of the bound can be read."""
    worst = max([item.ratio for item in found if item.ratio is not None], default=1.0)
    axes.set_yscale("function", functions=(_squeeze, _stretch))
    top = max(worst, 1.5)
    lane = any(item.ratio is None for item in found)
    axes.set_ylim(-0.12, _stretch(_squeeze(top) * (1.26 if lane else 1.08)))
    ticks = [tick for tick in (0, 0.5, 1, 2, 4, 8, 16, 32, 64, 128) if tick <= top]
    axes.set_yticks(ticks, [f"{tick:g}{TIMES}" if tick else "0" for tick in ticks])
    axes.axhspan(-0.12, 1.0, color=WITHIN, zorder=-2, linewidth=0)
    axes.axhline(1.0, color=RISK, linewidth=1.2, linestyle=(0, (5, 3)), zorder=0)
    axes.text(
        0.995, 1.0, "policy bound", color=RISK, ha="right", va="bottom", fontsize=9.0,
        transform=axes.get_yaxis_transform(),
    )  # fmt: skip
    if lane:
        axes.text(
            0.005, _stretch(_squeeze(top) * 1.19), "leakage not measured", color=MUTED, fontsize=9.0, style="italic",
            transform=axes.get_yaxis_transform(), va="bottom",
        )  # fmt: skip
    return _stretch(_squeeze(top) * _LANE)


def _point(axes: Axes, item: Candidate, lane: float, *, gid: str) -> None:
    x, y = _place(item, lane)
    if item.chosen:
        axes.plot(x, y, marker="o", ms=19, mew=0, ls="", color=HALO, zorder=2)
    if item.refusal is not None:
        axes.plot(x, y, marker="x", ms=7.5, mew=1.8, ls="", color="#8b929b", gid=gid, zorder=3)
    else:
        axes.plot(
            x, y, marker="s" if item.all_trusted else "o", ms=8.5, mew=1.8, ls="", gid=gid, zorder=3,
            color=TRUSTED if item.all_trusted else UNTRUSTED,
            markerfacecolor=PAPER if item.ratio is None else TRUSTED if item.all_trusted else UNTRUSTED,
        )  # fmt: skip


def _names(axes: Axes, found: Sequence[Candidate], lane: float, *, everyone: bool) -> None:
    """Write the names beside the points; candidates that fall onto each other share one line."""
    left, right = axes.get_xlim()
    tall = float(_squeeze(axes.get_ylim()[1]))
    shared: dict[tuple[int, int], list[Candidate]] = {}
    for item in found:
        x, y = _place(item, lane)
        if item.chosen or item.all_trusted:
            shared[-1 - len(shared), 0] = [item]
        elif everyone:
            shared.setdefault(
                (round(24 * (x - left) / (right - left)), round(20 * float(_squeeze(y)) / tall)), []
            ).append(item)
    for items in shared.values():
        item = items[-1]
        name = "all in the enclave" if item.all_trusted else ", ".join(dict.fromkeys(one.label for one in items))
        text = f"{'' if item.all_trusted else 'cut '}{name}, chosen" if item.chosen else name
        x, y = _place(item, lane)
        side = 1 if x < (left + right) / 2 else -1
        offset = _free_side(axes, item, found, lane) if item.chosen else (side * 8, -3 if item.all_trusted else 6)
        axes.annotate(
            text, (x, y), textcoords="offset points", fontsize=9.0, zorder=5 if item.chosen else 4,
            xytext=offset,
            ha="left" if offset[0] > 0 else "right",
            color=INK if item.chosen or item.refusal is None else MUTED,
            fontweight="bold" if item.chosen else "normal",
            arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.8} if item.chosen else None,
            bbox={"facecolor": PAPER, "alpha": 0.8, "edgecolor": "none", "pad": 1.5} if item.chosen else None,
        )  # fmt: skip


def _free_side(axes: Axes, item: Candidate, found: Sequence[Candidate], lane: float) -> tuple[int, int]:
    """Return the offset, in points, at which the chosen candidate's name covers the fewest other points."""

    def in_points(one: Candidate) -> tuple[float, float]:
        x, y = _place(one, lane)
        (left, right), top = axes.get_xlim(), float(_squeeze(axes.get_ylim()[1]))
        return _WIDTH_POINTS * (x - left) / (right - left), _HEIGHT_POINTS * float(_squeeze(y)) / top

    x0, y0 = in_points(item)

    def covered(offset: tuple[int, int]) -> int:
        start = x0 + offset[0] - (0 if offset[0] > 0 else _NAME_POINTS)
        level = y0 + offset[1]
        points = [in_points(one) for one in found if one is not item]
        hit = sum(start - 12 < x < start + _NAME_POINTS + 8 and level - 16 < y < level + 20 for x, y in points)
        outside = start < 0 or start + _NAME_POINTS > _WIDTH_POINTS or level < 0
        return hit + 100 * outside

    sides = [(side * 15, rise) for rise in (11, -16, 28, 44, 60, 80, 100) for side in (1, -1)]
    return min(sides, key=covered)


def _place(item: Candidate, lane: float) -> tuple[float, float]:
    """Return milliseconds and leakage; unknown leakage stands in the lane."""
    return item.latency_s * 1e3, lane if item.ratio is None else max(item.ratio, 0.0)


def _squeeze(value: float) -> float:
    """Linear up to 1, then growing as the root, with the same slope where they meet."""
    import numpy as np

    above = np.maximum(value, 1.0)
    return np.where(np.asarray(value) <= 1.0, value, 2.0 * np.sqrt(above) - 1.0)  # type: ignore[return-value]


def _stretch(value: float) -> float:
    """Undo ``_squeeze``."""
    import numpy as np

    above = np.maximum(value, 1.0)
    return np.where(np.asarray(value) <= 1.0, value, ((above + 1.0) / 2.0) ** 2)  # type: ignore[return-value]


def _tip(item: Candidate) -> str:
    where = "all in the enclave" if item.all_trusted else f"cut {item.label or 'none'} on {item.device}"
    leak = "leakage not measured" if item.ratio is None else f"{multiple(item.ratio)} the bound"
    return f"{where}: {seconds(item.latency_s)}, {leak}" + (f", refused: {item.refusal}" if item.refusal else "")
