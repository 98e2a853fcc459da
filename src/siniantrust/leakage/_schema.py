"""The audit as data: what was measured, on what, and how sure it is. Written as ``audit.json``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Literal[2] = 2


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataDescription(_Record):
    """The data the audit ran on. Counts are items; the three sets are disjoint."""

    sha256: str
    kind: Literal["image", "array", "token"] = Field(
        description="image: (1 or 3 channels, height, width), or spectrograms of sounds; token: integers; else array"
    )
    sample_rate_hz: int | None = Field(default=None, description="of sounds, whose spectrograms are reconstructed")
    input_name: str
    item_shape: tuple[int, ...]
    attacker_count: int
    mirrored_count: int = Field(default=0, description="mirror images of the attacker's items that attacks also use")
    validation_count: int
    heldout_count: int
    target_shape: tuple[int, ...] = Field(
        default=(), description="shape the attacks reconstruct: the item's, or smaller for images shrunk to the budget"
    )
    data_range: float = Field(default=1.0, description="largest minus smallest value; SSIM and pictures count in it")


class Estimate(_Record):
    """A leakage figure over held-out items, prior-corrected: 0 is the prior attacker, 1 the perfect one.

    Nothing is clipped but ``upper``, which is at least 0: any attacker can answer as the prior does. ``mean`` is that
    of all seeds. ``worst_5pct`` is the mean over the 5 % of items that leak most, each corrected by what the prior
    attacker reaches on that very item. ``lower`` and ``upper`` are one-sided 95 % bounds of the mean, those of the
    seeds that lie furthest out. ``upper`` includes ``headroom``, twice what the attacker gained when their means
    last doubled: others may double them again. A decision uses ``upper``, never the mean.
    """

    mean: float
    worst_5pct: float
    upper: float
    lower: float | None = None
    headroom: float = 0.0
    raw: float = Field(description="the metric itself, before the prior's correction")
    prior: float = Field(description="what the prior attacker reaches in the same units as raw")
    by_seed: tuple[float, ...] = Field(default=(), description="the mean for each seed")


class ScreenResult(_Record):
    """A screen's score at one cut. ``score`` is turned so that more means more leakage."""

    score: float
    raw: dict[str, float] = Field(description="the screen's own figures, as its source defines them")
    time_s: float


class Rung(_Record):
    """One budget that an attack was run with, and the mean leakage by metric that it reached."""

    attacker_items: int
    steps: int
    width: int
    mean: dict[str, float]


class AttackResult(_Record):
    """One attack at one cut. ``leakage`` is keyed by metric: ssim, nmse, reidentification, token, word and so on."""

    leakage: dict[str, Estimate]
    converged: bool = Field(description="false when twice the data or the width still moved a metric by the tolerance")
    gain: float = Field(description="what the last doubling of the budget gained, in the metric that moved most")
    gains: dict[str, float] = Field(default={}, description="the same for every metric")
    rungs: tuple[Rung, ...] = Field(default=(), description="the budgets that were tried, smallest first")
    next_budget: dict[str, int] = Field(default={}, description="what to try next where it has not converged")
    heldout_items: int | None = Field(default=None, description="items that were inverted, where not all of them")
    detail: str
    time_s: float
    picture: str | None = Field(default=None, description="PNG beside audit.json: the reconstructions of this attack")
    worst_picture: str | None = Field(
        default=None, description="PNG: the items that leak most, originals above, reconstructions below"
    )


class CutAudit(_Record):
    """Everything measured at one cut. ``leakage`` is, per metric, the best attack's estimate.

    ``over_priors`` holds the same attack's figures against stronger priors: what leaks beyond them.
    The attack ``downstream``, where it stands, is the best one at a later cut: whoever sees this cut can compute that.
    """

    cut_id: str
    tensors: tuple[str, ...]
    screens: dict[str, ScreenResult]
    attacks: dict[str, AttackResult]
    leakage: dict[str, Estimate]
    best_attack: dict[str, str] = Field(description="metric to the attack that reached the figure in leakage")
    converged: bool
    next_budget: dict[str, int] = Field(default={}, description="what to try next where it has not converged")
    declined: dict[str, str] = Field(default={}, description="attack to the reason why it cannot be mounted here")
    cut_short: str | None = Field(
        default=None, description="why the rest of the suite was not run: what was measured already excludes the cut"
    )
    unsettled: tuple[str, ...] = Field(
        default=(), description="metrics in which an attack with a larger budget may still pass the best one"
    )
    doubt: str | None = Field(
        default=None, description="why the figures mean nothing: what crosses, or the model's answer, never changes"
    )
    over_priors: dict[str, dict[str, Estimate]] = Field(default={}, description="prior to metric to estimate")

    def settled_in(self, metrics: Iterable[str]) -> bool:
        """Return whether the figures in ``metrics`` are final: the whole suite ran and nothing may still pass them."""
        if self.cut_short is not None or self.doubt is not None:
            return False
        return self.converged or (bool(self.unsettled) and set(self.unsettled).isdisjoint(metrics))


class ScreenSummary(_Record):
    """What a screen would have decided, and how well it ranks the cuts on this model.

    ``rank_correlation`` is Spearman's, keyed by metric, against the best attack over all audited cuts; +1 is a
    perfect ranking. ``plateau_cut_id`` is the earliest cut at which the talk's rule sees the similarity flat.
    """

    title: str
    source: str
    cost: str = ""
    rank_correlation: dict[str, float | None]
    plateau_cut_id: str | None


class AttackSummary(_Record):
    """What an attack is: its source, what it is allowed to know, and what it takes."""

    title: str
    source: str
    knowledge: str
    cost: str = ""


class PriorSummary(_Record):
    """An attacker who sees no features: what it answers with, and its own leakage over the mean."""

    title: str
    leakage: dict[str, Estimate]


class Audit(_Record):
    """The audit of one model on one data set. ``id`` is a hash over everything else."""

    schema_version: Literal[2] = SCHEMA_VERSION
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
    priors: dict[str, PriorSummary] = Field(default={}, description="priors stronger than the mean, by name")
    seeds: int = Field(default=1, description="runs of each attack with other random numbers")
    budget: dict[str, int | float | str | None] = Field(default={}, description="the limits that the audit ran under")
    left_out: dict[str, str] = Field(default={}, description="attacks of the suite that were not run, with the reason")
    bounds: dict[str, float] = Field(
        default={}, description="leakage beyond which a cut was given up early; empty if every cut got the whole suite"
    )
    averaged_queries: int | None = Field(
        default=None, description="answers for the same item that an attacker averages, where answers are random"
    )
    heldout_accuracy: float | None = Field(default=None, description="the uncut model's, where labels were given")
    machine: str
    time_s: float

    def by_cut(self, cut_id: str) -> CutAudit | None:
        """Return what was measured at ``cut_id``, or None."""
        return next((cut for cut in self.cuts if cut.cut_id == cut_id), None)
