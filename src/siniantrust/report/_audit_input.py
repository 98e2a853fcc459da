"""What the report reads of audit.json."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from siniantrust.report._inputs import Record, Seconds


class DataRead(Record):
    """The audit's data: what it was and how many items each role had."""

    sha256: str
    kind: str
    input_name: str
    item_shape: tuple[int, ...]
    attacker_count: int
    validation_count: int
    heldout_count: int


class EstimateRead(Record):
    """A prior-corrected leakage figure (0 guess, 1 perfect) with the metric's raw value and the guess's."""

    mean: float
    worst_5pct: float
    upper: float
    raw: float
    prior: float


class ScreenRead(Record):
    """A screen's score at a cut; more means more leakage."""

    score: float


class AttackRead(Record):
    """One attack at one cut."""

    leakage: dict[str, EstimateRead]
    converged: bool
    gain: float
    detail: str
    picture: str | None = None


class CutRead(Record):
    """All that was measured at one cut."""

    cut_id: str
    tensors: tuple[str, ...]
    screens: dict[str, ScreenRead]
    attacks: dict[str, AttackRead]
    leakage: dict[str, EstimateRead]
    best_attack: dict[str, str]
    converged: bool

    @model_validator(mode="after")
    def _best_attacks_exist(self) -> Self:
        for metric in self.leakage:
            name = self.best_attack.get(metric)
            if name not in self.attacks or metric not in self.attacks[name].leakage:
                raise ValueError(f"best_attack for {metric} must name an attack that measured it, found {name}")
        return self


class ScreenSummaryRead(Record):
    """A screen: where it comes from, how well it ranked the cuts, and which cut its rule would have taken."""

    title: str
    source: str
    rank_correlation: dict[str, float | None]
    plateau_cut_id: str | None


class AttackSummaryRead(Record):
    """An attack: where it comes from and what it knows."""

    title: str
    source: str
    knowledge: str


class AuditRead(Record):
    """The audit."""

    schema_version: Literal[1]
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
    heldout_accuracy: float | None = None
    machine: str
    time_s: Seconds
