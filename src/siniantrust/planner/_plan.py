"""The plan as data: parts, devices, labels and predicted costs. Written as ``plan.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from siniantrust.planner._policy import Policy
from siniantrust.trust import Label, ThreatModel

SCHEMA_VERSION: Literal[1] = 1
ENCLAVE = "enclave"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PlannedPart(_Record):
    """A part and the device it runs on; ``device`` is ``enclave`` or a device's name in the policy.

    An untrusted part may run on several devices at once: on ``device`` and on each of ``replicas``. Each of them gets
    whole requests, so that each has to be cleared for what the part reads and makes. The prediction's terms are for
    ``device``; terms for replicas may be added.
    """

    name: str
    device: str
    replicas: tuple[str, ...] = Field(default=(), description="further devices that take requests for this part")
    trusted: bool
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    flops: int
    parameter_bytes: int
    reason: str


class LabelledValue(_Record):
    """A value that crosses between parts, or enters or leaves the model.

    ``leakage_upper`` (per metric) and ``audit_id`` say what an obscured value is known to leak, and from where.
    """

    tensor: str
    label: Label
    source: str = Field(description="part that makes it, or 'client'")
    targets: tuple[str, ...] = Field(description="parts that read it, or 'client'")
    size_bytes: int
    leakage_upper: dict[str, float] | None = None
    audit_id: str | None = None


class CostTerm(_Record):
    """One addend of the predicted latency."""

    what: str
    where: str
    latency_s: float
    basis: str = Field(description="measured, or how it was estimated")


class Prediction(_Record):
    """Predicted cost of one request with batch size 1."""

    latency_s: float
    period_s: float = Field(description="time between answers when parts overlap in a pipeline")
    terms: tuple[CostTerm, ...]


class Alternative(_Record):
    """One candidate that the solver looked at. ``refusal`` is None when the policy allows it.

    ``device`` names the devices of all untrusted parts in order, those that share one with a + between.
    ``padded_layers`` counts the layers of part 1 that devices compute under pads.
    """

    cut_ids: tuple[str, ...]
    device: str
    latency_s: float
    period_s: float
    trusted_flops_share: float
    boundary_bytes: int
    leakage_upper: dict[str, float] | None
    refusal: str | None
    padded_layers: int = 0


class PaddedLayer(_Record):
    """A layer of part 1 that a device computes under one-time pads. Seconds are predicted, for one item.

    ``masked_s`` is what the enclave does for it (mask, check, unmask), ``device_s`` what the first device takes.
    """

    node: str
    entry: str = Field(description="the value that is sent, padded")
    exit: str = Field(description="the value whose padded form comes back; of two layers their sum, if devices add")
    masked_s: float
    device_s: float
    inside_s: float = Field(description="what the enclave would take to compute it")
    reason: str


class PaddedValue(_Record):
    """What a device sees of a value: residues that are uniform without its pad, sent to it or made by it."""

    tensor: str
    label: Label
    direction: Literal["sent", "received"]
    size_bytes: int = Field(description="most bytes for one item; what no layer reads is left out")


class Masking(_Record):
    """Layers of a trusted part that devices compute under pads; the rest of the part stays in the enclave."""

    mode: Literal["exact", "auto"]
    part: str
    devices: tuple[str, ...] = Field(description="the first one computes; the others where it failed")
    layers: tuple[PaddedLayer, ...]
    values: tuple[PaddedValue, ...]
    kept: dict[str, str] = Field(description="products and convolutions that stay inside, and why")
    offline_s: float = Field(
        description="predicted seconds of preparing pads for one item, in idle time of the enclave"
    )
    arithmetic: Literal["int8", "float64"] = Field(default="float64", description="in which devices compute")
    basis: str


class Plan(_Record):
    """A placement of one model under one policy."""

    schema_version: Literal[1] = SCHEMA_VERSION
    model_name: str
    model_sha256: str
    audit_id: str | None
    policy: Policy
    threat_model: ThreatModel
    cut_ids: tuple[str, ...]
    parts: tuple[PlannedPart, ...]
    values: tuple[LabelledValue, ...]
    prediction: Prediction
    alternatives: tuple[Alternative, ...]
    warnings: tuple[str, ...]
    machine: str
    reason: str = Field(default="", description="one sentence: what was chosen and what it is worth")
    masking: Masking | None = Field(default=None, description="what runs under one-time pads")

    @property
    def devices(self) -> str:
        """The untrusted devices as an ``Alternative`` names them; the enclave where there is none."""
        return name_devices([(part.device, *part.replicas) for part in self.parts if not part.trusted])

    @property
    def chosen(self) -> Alternative | None:
        """The alternative that this plan is; None if it is not listed."""
        layers = len(self.masking.layers) if self.masking is not None else 0
        wanted = (self.cut_ids, self.devices, layers)
        listed = ((each, (each.cut_ids, each.device, each.padded_layers)) for each in self.alternatives)
        return next((each for each, key in listed if key == wanted), None)


def name_devices(stages: Sequence[Sequence[str]]) -> str:
    """Return the devices of untrusted parts in one line: ``gpu0+gpu1, npu``."""
    return ", ".join("+".join(names) for names in stages) or ENCLAVE
