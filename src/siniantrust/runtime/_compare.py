"""Prediction against measurement, term by term."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from siniantrust.planner import CostTerm, Prediction
from siniantrust.runtime._record import Measured, MeasuredTerm


@dataclass(frozen=True)
class ComparedTerm:
    """One addend of the latency; None where only the other side has it. The last one is the whole."""

    what: str
    where: str
    predicted_s: float | None
    measured_s: float | None


def compare_terms(prediction: Prediction, measured: Measured) -> tuple[ComparedTerm, ...]:
    """Join what was predicted and what was measured by what and where, and end with the whole latency.

    The whole is measured by itself, and exceeds its terms by what lies between them.
    """
    expected, found = _summed(prediction.terms), _summed(measured.terms)
    terms = [ComparedTerm(*key, expected.get(key), found.get(key)) for key in dict.fromkeys((*expected, *found))]
    return (*terms, ComparedTerm("whole request", "", prediction.latency_s, measured.latency_s))


def _summed(terms: Iterable[CostTerm | MeasuredTerm]) -> dict[tuple[str, str], float]:
    sums: dict[tuple[str, str], float] = {}
    for term in terms:
        key = (term.what, term.where)
        sums[key] = sums.get(key, 0.0) + term.latency_s
    return sums
