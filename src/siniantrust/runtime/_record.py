"""What a run was measured to do, for the report: ``run.json``."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from siniantrust._files import write_atomic
from siniantrust.bundle import KeyStore, TrustedPart
from siniantrust.errors import DataError
from siniantrust.graph import Model, Part, split
from siniantrust.odla import DeviceSpec, Executable, open_device
from siniantrust.runtime._session import Arrays, Results, Session
from siniantrust.runtime._stages import Span
from siniantrust.trust import Provenance, unseal_part

_LATENCY_RUNS = 60
_TIMELINE_ITEMS = 12
_PACKAGES = ("siniantrust", "onnx", "onnxruntime", "numpy", "cryptography")


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
    """The enclave that was used."""

    provider: str
    provenance: Provenance
    protections: dict[str, str]
    memory_bytes: int


class DeviceRecord(_Record):
    """A device that was used."""

    name: str
    backend: str
    description: str


class SpanRecord(_Record):
    """When one item was in one stage; seconds since the pipeline began."""

    stage: str
    item: int
    start_s: float
    end_s: float


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
    started: str
    versions: dict[str, str]

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        write_atomic(path, self.model_dump_json(indent=1).encode())


def record_run(
    session: Session,
    model: Model,
    inputs: Arrays,
    *,
    labels: np.ndarray | None = None,
    keystore: KeyStore | None = None,
) -> tuple[RunRecord, Results]:
    """Run all items through the split and through the uncut model, compare, and time both in turns.

    Args:
        session: an open session.
        model: the uncut model that the bundle was built from.
        inputs: arrays with one row per item.
        labels: the true class of each item (N,), if known; compared with the first output's largest element.
        keystore: opens the trusted parts for timing them bare; None for the default place.

    Returns:
        The record, and the split's outputs.

    Raises:
        DataError: if the model is another one, or the inputs do not fit.
    """
    expected = session.bundle.plan.model_sha256
    if model.sha256 != expected:
        raise DataError(f"model {model.name}: its hash is {model.sha256[:12]}, the bundle is for {expected[:12]}")
    started = datetime.now(UTC).isoformat(timespec="seconds")
    whole = _open_whole(model, threads=session.bundle.plan.policy.enclave.threads)
    outputs = session.run_batched(inputs)
    uncut = _run_rows(whole, inputs, session)
    difference = max(float(np.max(np.abs(outputs[name] - uncut[name]))) for name in outputs)
    measured, uncut_s = _time(session, whole, _one_item(inputs, session), keystore or KeyStore())
    timeline, period_s = _pipelined(session, inputs)
    enclave = session.enclave_info()
    first = session.outputs[0].name
    return (
        RunRecord(
            model_name=model.name,
            model_sha256=model.sha256,
            bundle_id=session.bundle.id,
            count=len(next(iter(inputs.values()))),
            max_abs_difference=difference,
            accuracy=_accuracy(outputs[first], labels),
            accuracy_uncut=_accuracy(uncut[first], labels),
            measured=Measured(
                latency_s=statistics.median(measured.total_s),
                latency_p95_s=float(np.quantile(measured.total_s, 0.95)),
                period_s=period_s,
                terms=measured.terms,
            ),
            uncut_latency_s=uncut_s,
            machine=describe_machine(),
            enclave=EnclaveRecord(
                provider=enclave.provider,
                provenance=enclave.provenance,
                protections=dict(enclave.protections),
                memory_bytes=enclave.memory_limit_bytes,
            ),
            devices=tuple(
                DeviceRecord(name=info.name, backend=info.backend, description=info.description)
                for info in session.device_infos()
            ),
            timeline=timeline,
            started=started,
            versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        ),
        outputs,
    )


def describe_machine() -> str:
    """Return the processor, its cores and the system in a few words."""
    info = open_device(DeviceSpec("machine")).info()
    return f"{info.description}, {platform.system()} {platform.machine()}"


class _Times:
    """Seconds of each request, and of what it consists of."""

    def __init__(self) -> None:
        self.total_s: list[float] = []
        self.stages_s: dict[str, list[float]] = {}
        self.bare_s: dict[str, list[float]] = {}
        self.terms: tuple[MeasuredTerm, ...] = ()


def _time(session: Session, whole: Executable, item: Results, keystore: KeyStore) -> tuple[_Times, float]:
    """Time the split, its trusted parts run bare in this process, and the uncut model, in turns.

    What a trusted part takes in the enclave beyond what it takes bare is the crossing.
    """
    bare = _open_bare(session, keystore)
    times, uncut_s = _Times(), []
    for turn in range(_LATENCY_RUNS + 5):
        spans: dict[str, float] = {}
        values = dict(item)
        between: dict[str, Results] = {}
        begin = time.perf_counter()
        for stage in session.stages:
            seen = {name: values[name] for name in stage.inputs}
            between[stage.name] = seen
            start = time.perf_counter()
            values |= stage.run(seen)
            spans[stage.name] = time.perf_counter() - start
        total = time.perf_counter() - begin
        whole_s = _run_seconds(whole, item)
        bare_s = {name: _run_seconds(executable, between[name]) for name, executable in bare.items()}
        if turn >= 5:  # noqa: PLR2004 - the first turns warm caches
            times.total_s.append(total)
            uncut_s.append(whole_s)
            for record, found in ((times.stages_s, spans), (times.bare_s, bare_s)):
                for name, seconds in found.items():
                    record.setdefault(name, []).append(seconds)
    times.terms = tuple(_terms(session, times))
    return times, statistics.median(uncut_s)


def _terms(session: Session, times: _Times) -> list[MeasuredTerm]:
    terms = []
    for number, stage in enumerate(session.stages, start=1):
        spent_s = statistics.median(times.stages_s[stage.name])
        if stage.name in times.bare_s:
            bare_s = statistics.median(times.bare_s[stage.name])
            crossing = f"cross into part {number} and back"
            terms.append(MeasuredTerm(what=crossing, where=stage.where, latency_s=max(spent_s - bare_s, 0.0)))
            spent_s = min(bare_s, spent_s)
        terms.append(MeasuredTerm(what=f"compute part {number}", where=stage.where, latency_s=spent_s))
    return terms


def _run_seconds(executable: Executable, inputs: Arrays) -> float:
    start = time.perf_counter()
    executable.run(inputs)
    return time.perf_counter() - start


def _open_bare(session: Session, keystore: KeyStore) -> dict[str, Executable]:
    """Open the trusted parts outside the enclave; only the owner of the key can."""
    key = keystore.weight_key(session.bundle.id)
    device = open_device(DeviceSpec("bare", options={"threads": session.bundle.plan.policy.enclave.threads}))
    opened: dict[str, Executable] = {}
    for part in session.bundle.parts:
        if isinstance(part, TrustedPart):
            proto = unseal_part(part.skeleton, part.sealed, key=key, context=part.context)
            names = tuple(node.name for node in proto.graph.node)
            opened[part.name] = device.compile(
                Part(part.name, proto, part.inputs, part.outputs, names, part.batch_symbol)
            )
    return opened


def _open_whole(model: Model, *, threads: int) -> Executable:
    (part,) = split(model, ())
    return open_device(DeviceSpec("uncut", options={"threads": threads})).compile(part)


def _batch(session: Session) -> int:
    return 1 if session.bundle.batch_symbol is not None else session.inputs[0].shape[0]


def _one_item(inputs: Arrays, session: Session) -> Results:
    return {name: array[: _batch(session)] for name, array in inputs.items()}


def _run_rows(whole: Executable, inputs: Arrays, session: Session) -> Results:
    size, count = _batch(session), len(next(iter(inputs.values())))
    answers = [
        whole.run({name: array[start : start + size] for name, array in inputs.items()})
        for start in range(0, count, size)
    ]
    return {tensor.name: np.concatenate([answer[tensor.name] for answer in answers]) for tensor in session.outputs}


def _pipelined(session: Session, inputs: Mapping[str, np.ndarray]) -> tuple[tuple[SpanRecord, ...], float]:
    """Run a hundred items through the pipeline; return the first ones' way, and seconds between answers."""
    size = _batch(session)
    rows = len(next(iter(inputs.values())))
    starts = [start % max(rows - size + 1, 1) for start in range(0, 100 * size, size)]
    requests = ({name: array[start : start + size] for name, array in inputs.items()} for start in starts)
    spans: list[Span] = []
    begin = time.perf_counter()
    for _ in session.stream(requests, on_span=spans.append):
        pass
    period_s = (time.perf_counter() - begin) / len(starts)
    kept = (span for span in spans if span.item < _TIMELINE_ITEMS)
    return tuple(
        SpanRecord(stage=span.stage, item=span.item, start_s=span.start_s - begin, end_s=span.end_s - begin)
        for span in sorted(kept, key=lambda span: (span.start_s, span.item))
    ), period_s


def _accuracy(scores: np.ndarray, labels: np.ndarray | None) -> float | None:
    if labels is None or scores.ndim != 2:  # noqa: PLR2004 - (items, classes)
        return None
    return float((scores.argmax(axis=1) == labels).mean())
