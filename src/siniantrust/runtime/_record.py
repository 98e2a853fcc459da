"""What a run was measured to do, as data for the report: ``run.json``."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from siniantrust._files import write_atomic
from siniantrust.bundle import Quantised
from siniantrust.errors import SinianError
from siniantrust.trust import Provenance


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MeasuredTerm(_Record):
    """One addend of the measured latency, named as in the prediction."""

    what: str
    where: str
    latency_s: float


class Measured(_Record):
    """Seconds for one request of batch size 1: median, 95th percentile, and time between answers in the pipeline."""

    latency_s: float
    latency_p95_s: float
    period_s: float
    terms: tuple[MeasuredTerm, ...]


class EnclaveRecord(_Record):
    """The enclave that was used, and what admitted it: the policy's ``accept``, and the measurement compared."""

    provider: str
    provenance: Provenance
    accept: tuple[Provenance, ...]
    measurement: str
    protections: dict[str, str]
    memory_bytes: int


class DeviceRecord(_Record):
    """A device that was used."""

    name: str
    backend: str
    description: str


class SpanRecord(_Record):
    """When one item was in one stage and on which device; seconds since the pipeline began.

    From ``ready_s`` to ``start_s`` it waited for the stage.
    """

    stage: str
    item: int
    start_s: float
    end_s: float
    device: str = ""
    ready_s: float | None = None


class MaskedRecord(_Record):
    """What a masked part was measured to do, for one item: processor time of the enclave, bytes, and time of devices.

    ``prepare_s`` is the offline cost of its pads; no throughput counts without it. ``refill_per_s`` is how many items
    the enclave can prepare a second when it has nothing else to do; ``stock_bytes`` lie sealed outside it.
    """

    part: str
    devices: tuple[str, ...]
    layers: int
    items: int
    sent_bytes: float
    received_bytes: float
    mask_s: float
    unmask_s: float
    verify_s: float
    inside_s: float
    device_s: float
    prepare_s: float
    refill_per_s: float
    stock_level: int
    stock_bytes: int
    ran_dry: int
    refused: int
    quarantined: dict[str, str]
    quantised: Quantised


class RunRecord(_Record):
    """A run of a bundle over held-out items, against the uncut model on the same items."""

    model_name: str
    model_sha256: str
    bundle_id: str
    count: int
    max_abs_difference: float
    accuracy: float | None
    accuracy_uncut: float | None
    measured: Measured
    uncut_latency_s: float
    machine: str
    enclave: EnclaveRecord
    devices: tuple[DeviceRecord, ...]
    timeline: tuple[SpanRecord, ...]
    masked: MaskedRecord | None = None
    started: str
    versions: dict[str, str]

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all.

        Raises:
            SinianError: if it cannot be written.
        """
        try:
            write_atomic(path, self.model_dump_json(indent=1).encode())
        except OSError as fault:
            raise SinianError(f"run record {path}: cannot be written ({fault.strerror}); give another path") from None
