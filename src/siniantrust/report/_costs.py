"""Predicted and measured costs, side by side and term by term."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from siniantrust.report._load import Sources
from siniantrust.report._text import clean


@dataclass(frozen=True)
class CostRow:
    """One addend of the latency; either side is None where only the other one has it."""

    what: str
    where: str
    predicted_s: float | None
    measured_s: float | None
    basis: str


@dataclass(frozen=True)
class Costs:
    """The table of terms; ``largest_s`` scales its bars."""

    rows: tuple[CostRow, ...]
    largest_s: float


def compare_costs(sources: Sources) -> Costs:
    """Join predicted and measured terms on what and where; a term that comes several times is summed."""
    predicted: dict[tuple[str, str], float] = {}
    basis: dict[tuple[str, str], str] = {}
    for term in sources.plan.prediction.terms:
        key = (term.what, term.where)
        predicted[key] = predicted.get(key, 0.0) + term.latency_s
        basis.setdefault(key, term.basis)
    measured: dict[tuple[str, str], float] = {}
    for found in sources.run.measured.terms if sources.run else ():
        key = (found.what, found.where)
        measured[key] = measured.get(key, 0.0) + found.latency_s
    rows = tuple(
        CostRow(clean(what), clean(where), predicted.get(key), measured.get(key), clean(basis.get(key, "")))
        for key in dict.fromkeys((*predicted, *measured))
        for what, where in (key,)
    )
    return Costs(rows, largest_s=max((*predicted.values(), *measured.values()), default=0.0))


def trusted_places(sources: Sources) -> Mapping[str, bool]:
    """Return, for each part and device of the plan, whether it is on the trusted side."""
    places: dict[str, bool] = {}
    for part in sources.plan.parts:
        places[part.name] = part.trusted
        places[part.device] = part.trusted
    return places
