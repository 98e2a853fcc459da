"""What the report reads of plan.json."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from siniantrust.report._inputs import Bytes, Provenance, Record, Seconds


class EnclavePolicyRead(Record):
    """The policy's demands on the enclave."""

    provider: str
    accept: tuple[Provenance, ...]
    memory_bytes: Bytes
    threads: int


class DevicePolicyRead(Record):
    """An untrusted device in the policy."""

    name: str
    backend: str
    clearance: str


class LeakagePolicyRead(Record):
    """The policy's leakage bounds, per metric."""

    max: dict[str, float]
    require_converged: bool


class ObjectiveRead(Record):
    """What the solver minimised."""

    minimise: str


class MaskingPolicyRead(Record):
    """How layers run under pads: how sure a check of a device's answer is."""

    soundness_bits: int = 40


class PolicyRead(Record):
    """The policy that the plan was made under."""

    public_inputs: tuple[str, ...]
    enclave: EnclavePolicyRead
    device: tuple[DevicePolicyRead, ...]
    leakage: LeakagePolicyRead
    objective: ObjectiveRead
    masking: MaskingPolicyRead = MaskingPolicyRead()


class PartRead(Record):
    """A part of the model and the device that it runs on."""

    name: str
    device: str
    replicas: tuple[str, ...] = ()
    trusted: bool
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    flops: int
    parameter_bytes: Bytes
    reason: str


class ValueRead(Record):
    """A value that crosses between parts, or between the client and a part."""

    tensor: str
    label: str
    source: str
    targets: tuple[str, ...]
    size_bytes: Bytes
    leakage_upper: dict[str, float] | None = None
    audit_id: str | None = None


class TermRead(Record):
    """One addend of the predicted latency."""

    what: str
    where: str
    latency_s: Seconds
    basis: str


class PredictionRead(Record):
    """The predicted cost of one request."""

    latency_s: Seconds
    period_s: Seconds
    terms: tuple[TermRead, ...]


class AlternativeRead(Record):
    """One candidate of the solver; ``refusal`` is None where the policy allows it."""

    cut_ids: tuple[str, ...]
    device: str
    latency_s: Seconds
    period_s: Seconds
    trusted_flops_share: float
    boundary_bytes: Bytes
    leakage_upper: dict[str, float] | None
    refusal: str | None
    padded_layers: int = 0


class PaddedLayerRead(Record):
    """A layer that a device computes under pads, with predicted seconds of enclave, device, and of computing inside."""

    node: str
    entry: str
    exit: str
    masked_s: Seconds
    device_s: Seconds
    inside_s: Seconds
    reason: str


class PaddedValueRead(Record):
    """What a device sees of a value under a pad."""

    tensor: str
    label: str
    direction: Literal["sent", "received"]
    size_bytes: Bytes


class MaskingRead(Record):
    """The layers under pads; ``offline_s`` is what preparing pads for one item was predicted to take."""

    part: str
    devices: tuple[str, ...] = Field(min_length=1)
    layers: tuple[PaddedLayerRead, ...]
    values: tuple[PaddedValueRead, ...]
    kept: dict[str, str]
    offline_s: Seconds


class PlanRead(Record):
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
    masking: MaskingRead | None = None
