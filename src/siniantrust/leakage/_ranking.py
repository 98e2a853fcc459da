"""How well the screens rank the cuts: each against the best attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from siniantrust.leakage._registry import Screen, ScreenScore
from siniantrust.leakage._schema import CutAudit, ScreenSummary

_MIN_CUTS = 3


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation; None for fewer than three values or where one side is constant."""
    if len(first) < _MIN_CUTS or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)


def summarise(screens: Mapping[str, Screen], cuts: Sequence[CutAudit]) -> dict[str, ScreenSummary]:
    """Summarise every screen that applied to at least one of ``cuts``, which are in topological order."""
    summaries = {}
    for name, screen in screens.items():
        seen = [cut for cut in cuts if name in cut.screens]
        if not seen:
            continue
        results = [cut.screens[name] for cut in seen]
        index = screen.pick([ScreenScore(score=result.score, raw=result.raw) for result in results])
        scores = [result.score for result in results]
        summaries[name] = ScreenSummary(
            title=screen.title,
            source=screen.source,
            cost=screen.cost,
            rank_correlation={
                metric: rank_correlation(scores, [cut.leakage[metric].mean for cut in seen])
                for metric in seen[0].leakage
                if all(metric in cut.leakage for cut in seen)
            },
            plateau_cut_id=None if index is None else seen[index].cut_id,
        )
    return summaries
