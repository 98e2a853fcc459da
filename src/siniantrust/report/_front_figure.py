"""Latency against leakage: what every candidate costs and what it gives away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from siniantrust.report._cuts import CutView, bound_ratio
from siniantrust.report._inputs import AlternativeRead
from siniantrust.report._load import Sources
from siniantrust.report._svg import INK, MUTED, RISK, TRUSTED, UNTRUSTED, draw
from siniantrust.report._text import TIMES, clean, multiple, seconds

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Candidates whose leakage is unknown stand in a lane of their own above the scale.
_LANE = 1.14
_LABELLED = 24
_SHOWN = 300


@dataclass(frozen=True)
class Candidate:
    """One alternative of the plan. ``label`` are its cuts' numbers; ``ratio`` as in ``CutView``, None when unknown."""

    label: str
    title: str
    device: str
    latency_s: float
    period_s: float
    trusted_flops_share: float
    boundary_bytes: int
    ratio: float | None
    refusal: str | None
    all_trusted: bool
    chosen: bool
    on_front: bool


def candidates(sources: Sources, cuts: Sequence[CutView]) -> list[Candidate]:
    """Return every alternative in the order of the plan, with those on the Pareto front of the allowed ones marked."""
    plan = sources.plan
    numbers = {cut.id: cut for cut in cuts}
    untrusted = [part.device for part in plan.parts if not part.trusted]
    device = untrusted[0] if untrusted else plan.parts[0].device
    ratios = [_ratio(item, plan.policy.leakage.max) for item in plan.alternatives]
    allowed = [
        (item.latency_s, ratio)
        for item, ratio in zip(plan.alternatives, ratios, strict=True)
        if item.refusal is None and ratio is not None
    ]
    return [
        Candidate(
            label="+".join(str(numbers[cut_id].number) for cut_id in item.cut_ids),
            title=" + ".join(numbers[cut_id].label for cut_id in item.cut_ids) or "no cut",
            device=clean(item.device),
            latency_s=item.latency_s,
            period_s=item.period_s,
            trusted_flops_share=item.trusted_flops_share,
            boundary_bytes=item.boundary_bytes,
            ratio=ratio,
            refusal=None if item.refusal is None else clean(item.refusal),
            all_trusted=_all_trusted(item),
            chosen=item.cut_ids == plan.cut_ids and item.device == device,
            on_front=item.refusal is None and ratio is not None and not _dominated((item.latency_s, ratio), allowed),
        )
        for item, ratio in zip(plan.alternatives, ratios, strict=True)
    ]


def notable(found: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates to show: all, or of very many the best for each first cut and device, and the front.

    Plans with two cuts hold a candidate for every pair.
    """
    if len(found) <= _SHOWN:
        return list(found)
    best: dict[tuple[str, str], Candidate] = {}
    for item in found:
        key = (item.label.partition("+")[0], item.device)
        if key not in best or _rank(item) < _rank(best[key]):
            best[key] = item
    keep = {id(item) for item in best.values()}
    return [item for item in found if id(item) in keep or item.chosen or item.on_front]


def _rank(item: Candidate) -> tuple[bool, float]:
    return item.refusal is not None, item.latency_s


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
    axes.axhspan(-0.12, 1.0, color="#e7f2ef", zorder=-2, linewidth=0)
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
        axes.plot(x, y, marker="o", ms=19, mew=0, ls="", color="#ffd75e", zorder=2)
    if item.refusal is not None:
        axes.plot(x, y, marker="x", ms=7.5, mew=1.8, ls="", color="#8b929b", gid=gid, zorder=3)
    else:
        axes.plot(
            x, y, marker="s" if item.all_trusted else "o", ms=8.5, mew=1.8, ls="", gid=gid, zorder=3,
            color=TRUSTED if item.all_trusted else UNTRUSTED,
            markerfacecolor="#ffffff" if item.ratio is None else TRUSTED if item.all_trusted else UNTRUSTED,
        )  # fmt: skip


def _names(axes: Axes, found: Sequence[Candidate], lane: float, *, everyone: bool) -> None:
    """Write the names beside the points; candidates that fall onto each other share one line."""
    wide = max(item.latency_s for item in found) * 1e3 or 1.0
    tall = max(float(_squeeze(_place(item, lane)[1])) for item in found) or 1.0
    shared: dict[tuple[int, int], list[Candidate]] = {}
    for item in found:
        x, y = _place(item, lane)
        if item.chosen or item.all_trusted:
            shared[-1 - len(shared), 0] = [item]
        elif everyone:
            shared.setdefault((round(60 * x / wide), round(20 * float(_squeeze(y)) / tall)), []).append(item)
    left, right = axes.get_xlim()
    for items in shared.values():
        item = items[-1]
        name = "all in the enclave" if item.all_trusted else ", ".join(dict.fromkeys(one.label for one in items))
        text = f"{'' if item.all_trusted else 'cut '}{name}, chosen" if item.chosen else name
        x, y = _place(item, lane)
        side = 1 if x < (left + right) / 2 else -1
        axes.annotate(
            text, (x, y), textcoords="offset points", fontsize=9.0, zorder=4,
            xytext=(side * (13 if item.chosen else 8), 11 if item.chosen else -3 if item.all_trusted else 6),
            ha="left" if side > 0 else "right",
            color=INK if item.chosen or item.refusal is None else MUTED,
            fontweight="bold" if item.chosen else "normal",
        )  # fmt: skip


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


def _ratio(item: AlternativeRead, bounds: dict[str, float]) -> float | None:
    return 0.0 if _all_trusted(item) else bound_ratio(item.leakage_upper, bounds)


def _all_trusted(item: AlternativeRead) -> bool:
    return not item.cut_ids and item.device == "enclave"


def _dominated(mine: tuple[float, float], others: Sequence[tuple[float, float]]) -> bool:
    """Say whether another candidate is at least as good in both and better in one."""
    return any(latency <= mine[0] and ratio <= mine[1] and (latency, ratio) != mine for latency, ratio in others)
