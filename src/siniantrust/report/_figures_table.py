"""Every attack's own figures at every cut, for those who read tables: also where there are no pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from siniantrust.report._cuts import CutView
from siniantrust.report._load import Sources
from siniantrust.report._reconstructions import raw_figures
from siniantrust.report._text import clean


@dataclass(frozen=True)
class FigureRow:
    """One attack at one cut. ``figures`` are (metric, value, what guessing reaches) in the metric's own unit."""

    cut: CutView
    attack: str
    best: bool
    figures: tuple[tuple[str, str, str], ...]
    detail: str
    converged: bool


def figure_rows(sources: Sources, cuts: Sequence[CutView]) -> list[FigureRow]:
    """Return every attack at every cut, along the model."""
    audit = sources.audit
    if audit is None:
        return []
    bounds = list(sources.plan.policy.leakage.max)
    return [
        FigureRow(
            cut=cut,
            attack=clean(audit.attacks[name].title if name in audit.attacks else name),
            best=name in cut.measured.best_attack.values(),
            figures=raw_figures(attack, bounds),
            detail=clean(attack.detail),
            converged=attack.converged,
        )
        for cut in cuts
        if cut.measured
        for name, attack in cut.measured.attacks.items()
    ]
