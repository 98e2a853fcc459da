"""What the pictures of leakage share: the axis of cuts, the legend's entries, and the order of metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from siniantrust.report._audit_input import AttackSummaryRead, ScreenSummaryRead
from siniantrust.report._cuts import CutView
from siniantrust.report._load import Sources
from siniantrust.report._svg import CHOSEN, INK, MARKERS, PALETTE
from siniantrust.report._text import clean, in_policy_order, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMED_TICKS = 14
_MANY_TICKS = 26


@dataclass(frozen=True)
class Key:
    """An entry of a legend that HTML draws: a colour and one of matplotlib's marker letters."""

    title: str
    colour: str
    marker: str


def legend_keys(summaries: Mapping[str, AttackSummaryRead | ScreenSummaryRead], used: Iterable[str]) -> dict[str, Key]:
    """Return a legend's entries in the order of the audit's summaries; names that only cuts use come last."""
    names = dict.fromkeys((*summaries, *used))
    return {
        name: Key(
            clean(summaries[name].title if name in summaries else name),
            PALETTE[index % len(PALETTE)],
            # Shifted by one each time the colours start again, so that no two entries look alike before the fiftieth.
            MARKERS[(index + index // len(PALETTE)) % len(MARKERS)],
        )
        for index, name in enumerate(names)
    }


def metrics_of(sources: Sources) -> list[str]:
    """Return the audit's metrics, those that the policy limits first."""
    bounds = sources.plan.policy.leakage.max
    found = {metric for cut in (sources.audit.cuts if sources.audit else ()) for metric in cut.leakage}
    return in_policy_order(found, bounds)


def on_axis(cuts: Sequence[CutView]) -> list[CutView]:
    """Return the cuts that a chart has figures for, and the chosen ones; they stand at even distances."""
    return [cut for cut in cuts if cut.measured is not None or cut.chosen]


def places_of(cuts: Sequence[CutView]) -> dict[int, int]:
    """Return each cut's place on the axis by its number."""
    return {cut.number: place for place, cut in enumerate(cuts, start=1)}


def mark_chosen(axes: Axes, cuts: Sequence[CutView]) -> None:
    """Shade the plan's own cuts."""
    for place, cut in enumerate(cuts, start=1):
        if cut.chosen:
            axes.axvspan(place - 0.4, place + 0.4, color=CHOSEN, zorder=-1, linewidth=0)


def has_names(cuts: Sequence[CutView]) -> bool:
    """Say whether the cuts along the bottom are few enough to be named."""
    return len(cuts) <= _NAMED_TICKS


def cut_axis(axes: Axes, cuts: Sequence[CutView]) -> None:
    """Number the cuts along the bottom; few cuts get their names, very many only every other number."""
    axes.set_xlim(0.4, len(cuts) + 0.6)
    step = 1 + max(len(cuts) - 1, 0) // _MANY_TICKS
    labelled = list(enumerate(cuts, start=1))[::step]
    places = [place for place, _ in labelled]
    if has_names(cuts):
        names = [f"{cut.number} · {short(cut.label, 13)}" for _, cut in labelled]
        axes.set_xticks(places, names, rotation=38, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(places, [str(cut.number) for _, cut in labelled])
        axes.set_xlabel("cut (numbers as in the strip above)")
    for tick, (_, cut) in zip(axes.get_xticklabels(), labelled, strict=False):
        if cut.chosen:
            tick.set_color(INK)
            tick.set_fontweight("bold")
    axes.grid(axis="y")
    axes.tick_params(length=0)
