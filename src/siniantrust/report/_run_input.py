"""What the report reads of run.json."""

from __future__ import annotations

from pydantic import Field

from siniantrust.report._inputs import Bytes, Provenance, Record, Seconds


class MeasuredTermRead(Record):
    """One addend of the measured latency, named as in the prediction."""

    what: str
    where: str
    latency_s: Seconds


class MeasuredRead(Record):
    """Measured cost of one request: median, 95th percentile, and time between answers in a pipeline."""

    latency_s: Seconds
    latency_p95_s: Seconds
    period_s: Seconds | None = None
    terms: tuple[MeasuredTermRead, ...]


class EnclaveRead(Record):
    """The enclave that the run used. ``protections`` maps a name to ``active`` or to why it is missing.

    Older records do not say what admitted it.
    """

    provider: str
    provenance: Provenance
    accept: tuple[Provenance, ...] = ()
    measurement: str = ""
    protections: dict[str, str]
    memory_bytes: Bytes | None = None


class DeviceRead(Record):
    """A device that the run used, in its own words."""

    name: str
    backend: str
    description: str


class SpanRead(Record):
    """When one item was in one stage, and on which device; seconds since the run began.

    From ``ready_s`` to ``start_s`` it waited for the stage.
    """

    stage: str
    item: int
    start_s: Seconds
    end_s: Seconds
    device: str = ""
    ready_s: Seconds | None = None


class QuantisedRead(Record):
    """What quantisation cost on held-out items, measured at build."""

    items: int
    accuracy: float | None
    accuracy_float: float | None
    agreement: float | None
    difference: float


class MaskedRead(Record):
    """What a part with layers under pads was measured to do, for one item; ``prepare_s`` is paid beside it."""

    part: str
    devices: tuple[str, ...]
    layers: int
    items: int
    sent_bytes: float
    received_bytes: float
    mask_s: Seconds
    unmask_s: Seconds
    verify_s: Seconds
    inside_s: Seconds
    device_s: Seconds
    prepare_s: Seconds
    refill_per_s: float
    ran_dry: int
    refused: int
    quarantined: dict[str, str]
    quantised: QuantisedRead


class RunRead(Record):
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
    masked: MaskedRead | None = None
    started: str
    versions: dict[str, str]
