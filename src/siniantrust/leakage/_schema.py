"""The audit as data: what was measured, on what, and how sure it is. Written as ``audit.json``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Literal[1] = 1


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataDescription(_Record):
    """The data the audit ran on. Counts are items; the three sets are disjoint."""

    sha256: str
    kind: Literal["image", "array"] = Field(description="image: (channels 1 or 3, height, width); array: anything else")
    input_name: str
    item_shape: tuple[int, ...]
    attacker_count: int
    validation_count: int
    heldout_count: int
    target_shape: tuple[int, ...] = Field(
        default=(), description="shape the attacks reconstruct: the item's, or smaller for images shrunk to the budget"
    )
    data_range: float = Field(default=1.0, description="largest minus smallest value; SSIM and pictures count in it")


class Estimate(_Record):
    """A leakage figure over held-out items, prior-corrected: 0 is the prior attacker, 1 the perfect one.

    Nothing is clipped: an attack that does worse than the prior gives a negative figure. ``worst_5pct`` is the mean
    over the 5 % of items that leak most, each corrected by what the prior attacker reaches on that very item.
    ``upper`` is the one-sided 95 % bound of the mean; a decision uses it, never the mean.
    """

    mean: float
    worst_5pct: float
    upper: float
    raw: float = Field(description="the metric itself, before the prior's correction")
    prior: float = Field(description="what the prior attacker reaches in the same units as raw")


class ScreenResult(_Record):
    """A screen's score at one cut. ``score`` is turned so that more means more leakage."""

    score: float
    raw: dict[str, float] = Field(description="the screen's own figures, as its source defines them")
    time_s: float


class AttackResult(_Record):
    """One attack at one cut. ``leakage`` is keyed by metric (ssim, nmse, reidentification)."""

    leakage: dict[str, Estimate]
    converged: bool = Field(
        description="false when doubling the budget still moved a metric by more than the tolerance"
    )
    gain: float = Field(description="what the last doubling of the budget gained, in the metric that moved most")
    gains: dict[str, float] = Field(default={}, description="the same for every metric")
    detail: str
    time_s: float
    picture: str | None = Field(default=None, description="PNG beside audit.json: the reconstructions of this attack")


class CutAudit(_Record):
    """Everything measured at one cut. ``leakage`` is, per metric, the best attack's estimate.

    The attack ``downstream``, where it stands, is the best one at a later cut: whoever sees this cut can compute that.
    """

    cut_id: str
    tensors: tuple[str, ...]
    screens: dict[str, ScreenResult]
    attacks: dict[str, AttackResult]
    leakage: dict[str, Estimate]
    best_attack: dict[str, str] = Field(description="metric to the attack that reached the figure in leakage")
    converged: bool


class ScreenSummary(_Record):
    """What a screen would have decided, and how well it ranks the cuts on this model.

    ``rank_correlation`` is Spearman's, keyed by metric, against the best attack over all audited cuts; +1 is a
    perfect ranking. ``plateau_cut_id`` is the earliest cut at which the talk's rule sees the similarity flat.
    """

    title: str
    source: str
    rank_correlation: dict[str, float | None]
    plateau_cut_id: str | None


class AttackSummary(_Record):
    """What an attack is: its source and what it is allowed to know."""

    title: str
    source: str
    knowledge: str


class Audit(_Record):
    """The audit of one model on one data set. ``id`` is a hash over everything else."""

    schema_version: Literal[1] = SCHEMA_VERSION
    id: str
    model_name: str
    model_sha256: str
    data: DataDescription
    seed: int
    tolerance: float = Field(description="move of a metric, when the budget doubles, above which it is not converged")
    cuts: tuple[CutAudit, ...]
    skipped: dict[str, str] = Field(description="cut id to the reason why it was not audited")
    screens: dict[str, ScreenSummary]
    attacks: dict[str, AttackSummary]
    originals_picture: str | None
    class_mean_prior: dict[str, Estimate] | None = Field(
        default=None,
        description="what an attacker reaches who sees only the predicted class and answers with that class's mean",
    )
    heldout_accuracy: float | None = Field(default=None, description="the uncut model's, where labels were given")
    machine: str
    time_s: float

    def by_cut(self, cut_id: str) -> CutAudit | None:
        """Return what was measured at ``cut_id``, or None."""
        return next((cut for cut in self.cuts if cut.cut_id == cut_id), None)
