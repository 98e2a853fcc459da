"""Screens beside the attacks: the table of what each would have decided, and what an attacker gets there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from siniantrust.report._audit_input import AuditRead
from siniantrust.report._axis import Key, legend_keys, metrics_of
from siniantrust.report._cuts import CutView
from siniantrust.report._load import Sources
from siniantrust.report._text import clean, metric_title


@dataclass(frozen=True)
class ScreenRow:
    """A screen in the table: the cut that its rule would take, and what the best attack got there."""

    key: Key
    source: str
    cost: str
    plateau: CutView | None
    leakage_there: tuple[tuple[str, float, bool], ...]
    correlations: tuple[float | None, ...]


def screen_keys(audit: AuditRead) -> dict[str, Key]:
    """Return the legend of the screens."""
    return legend_keys(audit.screens, (name for cut in audit.cuts for name in cut.screens))


def screen_rows(sources: Sources, cuts: Sequence[CutView]) -> list[ScreenRow]:
    """Return the table of screens; the correlations come in the order of ``metrics_of``."""
    audit = sources.audit
    if audit is None:
        return []
    bounds = sources.plan.policy.leakage.max
    metrics = metrics_of(sources)
    keys = screen_keys(audit)
    rows = []
    for name, summary in audit.screens.items():
        plateau = next((cut for cut in cuts if cut.id == summary.plateau_cut_id), None)
        there = plateau.measured.leakage if plateau and plateau.measured else {}
        rows.append(
            ScreenRow(
                key=keys[name],
                source=clean(summary.source),
                cost=clean(summary.cost),
                plateau=plateau,
                leakage_there=tuple(
                    (metric_title(metric), there[metric].mean, there[metric].upper > bounds.get(metric, 1e9))
                    for metric in metrics
                    if metric in there
                ),
                correlations=tuple(summary.rank_correlation.get(metric) for metric in metrics),
            )
        )
    return rows
