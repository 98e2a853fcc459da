"""What the report reads of audit.json."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import model_validator

from siniantrust.report._inputs import Record, Seconds

# Not an attack of its own: what the best attack at a later cut reaches, which an earlier cut leaks too.
DOWNSTREAM = "downstream"


class DataRead(Record):
    """The audit's data: what it was and how many items each role had."""

    sha256: str
    kind: str
    sample_rate_hz: int | None
    input_name: str
    item_shape: tuple[int, ...]
    target_shape: tuple[int, ...]
    attacker_count: int
    validation_count: int
    heldout_count: int


class EstimateRead(Record):
    """A prior-corrected leakage figure (0 guess, 1 perfect) with the metric's raw value and the guess's."""

    mean: float
    worst_5pct: float
    upper: float
    lower: float | None
    raw: float
    prior: float
    by_seed: tuple[float, ...]


class ScreenRead(Record):
    """A screen's score at a cut; more means more leakage."""

    score: float


class RungRead(Record):
    """One budget that an attack was run with, and the mean leakage by metric that it reached."""

    attacker_items: int
    steps: int
    width: int
    mean: dict[str, float]


class AttackRead(Record):
    """One attack at one cut."""

    leakage: dict[str, EstimateRead]
    converged: bool
    gain: float
    rungs: tuple[RungRead, ...]
    next_budget: dict[str, int]
    heldout_items: int | None
    detail: str
    time_s: Seconds
    picture: str | None
    worst_picture: str | None


class CutRead(Record):
    """All that was measured at one cut."""

    cut_id: str
    tensors: tuple[str, ...]
    screens: dict[str, ScreenRead]
    attacks: dict[str, AttackRead]
    leakage: dict[str, EstimateRead]
    best_attack: dict[str, str]
    converged: bool
    next_budget: dict[str, int]
    declined: dict[str, str]
    cut_short: str | None
    doubt: str | None = None
    unsettled: tuple[str, ...] = ()
    over_priors: dict[str, dict[str, EstimateRead]]

    @model_validator(mode="after")
    def _best_attacks_exist(self) -> Self:
        for metric in self.leakage:
            name = self.best_attack.get(metric)
            if name not in self.attacks or metric not in self.attacks[name].leakage:
                raise ValueError(f"best_attack for {metric} must name an attack that measured it, found {name}")
        return self

    @property
    def settled(self) -> bool:
        """Whether the figures are final: they mean something, the suite ran, and none of it could still improve."""
        return self.converged and self.cut_short is None and self.doubt is None

    def settled_in(self, metrics: Iterable[str]) -> bool:
        """Return whether the figures in ``metrics`` are final, whatever the others do."""
        if self.cut_short is not None or self.doubt is not None:
            return False
        return self.converged or (bool(self.unsettled) and set(self.unsettled).isdisjoint(metrics))


class ScreenSummaryRead(Record):
    """A screen: where it comes from, how well it ranked the cuts, and which cut its rule would have taken."""

    title: str
    source: str
    cost: str
    rank_correlation: dict[str, float | None]
    plateau_cut_id: str | None


class AttackSummaryRead(Record):
    """An attack: where it comes from, what it knows and what it takes."""

    title: str
    source: str
    knowledge: str
    cost: str


class PriorRead(Record):
    """A guesser who sees no features: what it answers with, and its own leakage."""

    title: str
    leakage: dict[str, EstimateRead]


class AuditRead(Record):
    """The audit."""

    schema_version: Literal[2]
    id: str
    model_name: str
    model_sha256: str
    data: DataRead
    seed: int
    tolerance: float
    cuts: tuple[CutRead, ...]
    skipped: dict[str, str]
    screens: dict[str, ScreenSummaryRead]
    attacks: dict[str, AttackSummaryRead]
    originals_picture: str | None
    priors: dict[str, PriorRead]
    seeds: int
    budget: dict[str, int | float | str | None]
    bounds: dict[str, float]
    averaged_queries: int | None
    heldout_accuracy: float | None
    machine: str
    time_s: Seconds
