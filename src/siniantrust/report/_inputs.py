"""What the report reads of audit.json, plan.json and run.json: only the fields that it shows.

The rooms that write these files own their schemas. The report keeps readers of its own, so that it depends on files
and not on code; fields that it does not show are ignored, fields that it shows are required.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Seconds = Annotated[float, Field(ge=0)]
Bytes = Annotated[int, Field(ge=0)]
Provenance = Literal["hardware", "emulated", "simulated"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class DataRead(_Record):
    """The audit's data: what it was and how many items each role had."""

    sha256: str
    kind: str
    input_name: str
    item_shape: tuple[int, ...]
    attacker_count: int
    validation_count: int
    heldout_count: int


class EstimateRead(_Record):
    """A prior-corrected leakage figure (0 guess, 1 perfect) with the metric's raw value and the guess's."""

    mean: float
    worst_5pct: float
    upper: float
    raw: float
    prior: float


class ScreenRead(_Record):
    """A screen's score at a cut; more means more leakage."""

    score: float


class AttackRead(_Record):
    """One attack at one cut."""

    leakage: dict[str, EstimateRead]
    converged: bool
    gain: float
    detail: str
    picture: str | None = None


class CutRead(_Record):
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


class ScreenSummaryRead(_Record):
    """A screen: where it comes from, how well it ranked the cuts, and which cut its rule would have taken."""

    title: str
    source: str
    rank_correlation: dict[str, float | None]
    plateau_cut_id: str | None


class AttackSummaryRead(_Record):
    """An attack: where it comes from and what it knows."""

    title: str
    source: str
    knowledge: str


class AuditRead(_Record):
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


class EnclavePolicyRead(_Record):
    """The policy's demands on the enclave."""

    provider: str
    accept: tuple[Provenance, ...]
    memory_bytes: Bytes
    threads: int


class DevicePolicyRead(_Record):
    """An untrusted device in the policy."""

    name: str
    backend: str
    clearance: str


class LeakagePolicyRead(_Record):
    """The policy's leakage bounds, per metric."""

    max: dict[str, float]
    require_converged: bool


class ObjectiveRead(_Record):
    """What the solver minimised."""

    minimise: str


class PolicyRead(_Record):
    """The policy that the plan was made under."""

    public_inputs: tuple[str, ...]
    enclave: EnclavePolicyRead
    device: tuple[DevicePolicyRead, ...]
    leakage: LeakagePolicyRead
    objective: ObjectiveRead


class PartRead(_Record):
    """A part of the model and the device that it runs on."""

    name: str
    device: str
    trusted: bool
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    flops: int
    parameter_bytes: Bytes
    reason: str


class ValueRead(_Record):
    """A value that crosses between parts, or between the client and a part."""

    tensor: str
    label: str
    source: str
    targets: tuple[str, ...]
    size_bytes: Bytes
    leakage_upper: dict[str, float] | None = None
    audit_id: str | None = None


class TermRead(_Record):
    """One addend of the predicted latency."""

    what: str
    where: str
    latency_s: Seconds
    basis: str


class PredictionRead(_Record):
    """The predicted cost of one request."""

    latency_s: Seconds
    period_s: Seconds
    terms: tuple[TermRead, ...]


class AlternativeRead(_Record):
    """One candidate of the solver; ``refusal`` is None where the policy allows it."""

    cut_ids: tuple[str, ...]
    device: str
    latency_s: Seconds
    period_s: Seconds
    trusted_flops_share: float
    boundary_bytes: Bytes
    leakage_upper: dict[str, float] | None
    refusal: str | None


class PlanRead(_Record):
    """The plan."""

    schema_version: Literal[1]
    model_name: str
    model_sha256: str
    audit_id: str | None
    policy: PolicyRead
    threat_model: Literal["input-privacy", "output-privacy"]
    cut_ids: tuple[str, ...]
    parts: tuple[PartRead, ...] = Field(min_length=1)
    values: tuple[ValueRead, ...]
    prediction: PredictionRead
    alternatives: tuple[AlternativeRead, ...]
    warnings: tuple[str, ...]
    machine: str
    reason: str = ""


class MeasuredTermRead(_Record):
    """One addend of the measured latency, named as in the prediction."""

    what: str
    where: str
    latency_s: Seconds


class MeasuredRead(_Record):
    """Measured cost of one request: median, 95th percentile, and time between answers in a pipeline."""

    latency_s: Seconds
    latency_p95_s: Seconds
    period_s: Seconds | None = None
    terms: tuple[MeasuredTermRead, ...]


class EnclaveRead(_Record):
    """The enclave that the run used. ``protections`` maps a name to ``active`` or to why it is missing."""

    provider: str
    provenance: Provenance
    protections: dict[str, str]
    memory_bytes: Bytes | None = None


class DeviceRead(_Record):
    """A device that the run used, in its own words."""

    name: str
    backend: str
    description: str


class SpanRead(_Record):
    """When one item was in one stage; seconds since the run began."""

    stage: str
    item: int
    start_s: Seconds
    end_s: Seconds


class RunRead(_Record):
    """A run over held-out items: the answers' difference from the uncut model, and what it cost."""

    model_name: str
    model_sha256: str
    bundle_id: str
    count: int = Field(ge=0)
    max_abs_difference: float | None = None
    accuracy: float | None = None
    accuracy_uncut: float | None = None
    measured: MeasuredRead
    uncut_latency_s: Seconds | None = None
    machine: str
    enclave: EnclaveRead
    devices: tuple[DeviceRead, ...]
    timeline: tuple[SpanRead, ...] = ()
    started: str
    versions: dict[str, str]
