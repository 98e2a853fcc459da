"""Measuring a run: the split against the uncut model on the same items, term by term."""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import cycle, islice

import numpy as np

from siniantrust.bundle import KeyStore, TrustedPart
from siniantrust.errors import DataError
from siniantrust.graph import Model, Part, noise_inputs, split
from siniantrust.odla import Device, DeviceSpec, Executable, open_device
from siniantrust.runtime._device_stage import DeviceStage
from siniantrust.runtime._interface import Arrays, Results
from siniantrust.runtime._masked_record import measure_masked
from siniantrust.runtime._masked_stage import MaskedStage
from siniantrust.runtime._record import (
    DeviceRecord,
    EnclaveRecord,
    Measured,
    MeasuredTerm,
    RunRecord,
    SpanRecord,
)
from siniantrust.runtime._session import Session
from siniantrust.runtime._stages import Span
from siniantrust.trust import unseal_part

_WARM_UP_RUNS = 5
_LATENCY_RUNS = 60
_PIPELINED_RUNS = 100
_TIMELINE_ITEMS = 12
_FILL_S = 60.0
_PACKAGES = ("siniantrust", "onnx", "onnxruntime", "numpy", "cryptography")


def record_run(
    session: Session,
    model: Model,
    inputs: Arrays,
    *,
    labels: np.ndarray | None = None,
    keystore: KeyStore | None = None,
    batch_items: int = 1,
) -> tuple[RunRecord, Results]:
    """Run all items through the split and through the uncut model, compare, and time both in turns.

    Args:
        session: an open session.
        model: the uncut model that the bundle was built from.
        inputs: arrays with one row per item.
        labels: the true class of each item (N,), integers, if known; compared with the first output's largest element.
        keystore: opens the trusted parts for timing them bare; None for the default place.
        batch_items: items per request for the comparison, where the model leaves it free; times are for one item.

    Returns:
        The record, and the split's outputs.

    Raises:
        DataError: if the model is another one, the inputs or labels do not fit, or an output is not a number.
    """
    expected = session.bundle.plan.model_sha256
    if model.sha256 != expected:
        raise DataError(f"model {model.name}: its hash is {model.sha256[:12]}, the bundle is for {expected[:12]}")
    requests = session.interface.cut(inputs, batch_items=batch_items)
    count = session.interface.count_rows(inputs)
    _check_labels(labels, count)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    with ExitStack() as stack:
        whole = _open_whole(stack, model, threads=session.bundle.plan.policy.enclave.threads)
        outputs = session.interface.join(list(session.stream(requests)))
        uncut = session.interface.join([whole.run(request) for request in requests])
        difference = max(_difference(tensor.name, outputs, uncut) for tensor in session.outputs)
        bare = _open_bare(stack, session, keystore or KeyStore())
        singles = session.interface.cut(inputs, batch_items=1)
        times, uncut_s = _time(session, whole, bare, singles[0])
    timeline, period_s = _pipelined(session, singles)
    enclave = session.enclave_info()
    first = session.outputs[0].name
    return (
        RunRecord(
            model_name=model.name,
            model_sha256=model.sha256,
            bundle_id=session.bundle.id,
            count=count,
            max_abs_difference=difference,
            accuracy=_accuracy(outputs[first], labels),
            accuracy_uncut=_accuracy(uncut[first], labels),
            measured=Measured(
                latency_s=statistics.median(times.total_s),
                latency_p95_s=float(np.quantile(times.total_s, 0.95)),
                period_s=period_s,
                terms=tuple(_terms(session, times)),
            ),
            uncut_latency_s=uncut_s,
            machine=describe_machine(),
            enclave=EnclaveRecord(
                provider=enclave.provider,
                provenance=enclave.provenance,
                accept=session.bundle.plan.policy.enclave.accept,
                measurement=enclave.measurement,
                protections=dict(enclave.protections),
                memory_bytes=enclave.memory_limit_bytes,
            ),
            devices=tuple(
                DeviceRecord(name=info.name, backend=info.backend, description=info.description)
                for info in session.device_infos()
            ),
            timeline=timeline,
            masked=None if session.masked is None else measure_masked(session.masked),
            started=started,
            versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        ),
        outputs,
    )


def describe_machine() -> str:
    """Return the processor, its cores and the system in a few words."""
    with closing(open_device(DeviceSpec("machine"))) as device:
        return f"{device.info().description}, {platform.system()} {platform.machine()}"


def _check_labels(labels: np.ndarray | None, count: int) -> None:
    if labels is not None and (labels.dtype.kind not in "iu" or labels.shape != (count,)):
        raise DataError(f"labels: expected integers of shape ({count},), found {labels.dtype} {labels.shape}")


def _difference(name: str, split: Results, uncut: Results) -> float:
    """Return the largest absolute difference; equal infinities differ by nothing."""
    found, expected = (results[name].astype(np.float64) for results in (split, uncut))
    differs = found != expected
    difference = float(np.max(np.abs(found[differs] - expected[differs]), initial=0.0))
    if not math.isfinite(difference):
        raise DataError(f"output {name!r}: it holds NaN or infinity on these items, so it cannot be compared")
    return difference


class _Times:
    """Seconds of each request, and of what it consists of."""

    def __init__(self) -> None:
        self.total_s: list[float] = []
        self.stages_s: dict[str, list[float]] = {}
        self.moved_bytes: dict[str, tuple[int, int]] = {}
        self.bare_s: dict[str, list[float]] = {}
        self.padded_s: list[float] = []


def _time(session: Session, whole: Executable, bare: Mapping[str, _Bare], item: Results) -> tuple[_Times, float]:
    """Time the split, its trusted parts run ``bare`` in this process, and the uncut model, in turns.

    What a trusted part takes in the enclave beyond what it takes bare is the crossing. What a device's part takes
    beyond the computation is measured apart, by calls that only move data.
    """
    times, uncut_s = _Times(), []
    for turn in range(_WARM_UP_RUNS + _LATENCY_RUNS):
        spans: dict[str, float] = {}
        values = dict(item)
        between: dict[str, Results] = {}
        padded_s = 0.0
        if session.masked is not None:
            session.masked.fill(_FILL_S)  # preparing is idle time's, and has a figure of its own
            padded_s = session.masked.device_s
        begin = time.perf_counter()
        for stage in session.stages:
            seen = {name: values[name] for name in stage.inputs}
            between[stage.name] = seen
            start = time.perf_counter()
            made = stage.run(seen).outputs
            spans[stage.name] = time.perf_counter() - start
            values |= made
            times.moved_bytes[stage.name] = (_bytes(seen), _bytes(made))
        total = time.perf_counter() - begin
        whole_s = _run_seconds(whole, item)
        bare_s = {name: each.seconds(between[name]) for name, each in bare.items()}
        if turn >= _WARM_UP_RUNS:
            times.total_s.append(total)
            uncut_s.append(whole_s)
            if session.masked is not None:
                times.padded_s.append(session.masked.device_s - padded_s)
            for record, found in ((times.stages_s, spans), (times.bare_s, bare_s)):
                for name, seconds in found.items():
                    record.setdefault(name, []).append(seconds)
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
        elif isinstance(stage, MaskedStage):
            padded_s = min(statistics.median(times.padded_s), spent_s)
            padded = f"padded layers of part {number}, moved there and back"
            terms.append(MeasuredTerm(what=padded, where=stage.masking.devices[0], latency_s=padded_s))
            spent_s -= padded_s
        elif isinstance(stage, DeviceStage):
            move_s = min(stage.call_cost().latency_s(*times.moved_bytes[stage.name]), spent_s)
            terms.append(MeasuredTerm(what="move to the device and back", where=stage.where, latency_s=move_s))
            spent_s -= move_s
        terms.append(MeasuredTerm(what=f"compute part {number}", where=stage.where, latency_s=spent_s))
    return terms


def _bytes(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())


def _run_seconds(executable: Executable, inputs: Arrays) -> float:
    start = time.perf_counter()
    executable.run(inputs)
    return time.perf_counter() - start


@dataclass(frozen=True)
class _Bare:
    """A trusted part outside the enclave, with numbers for the inputs that the enclave would fill with noise."""

    executable: Executable
    noise: Arrays

    def seconds(self, inputs: Arrays) -> float:
        """Return the seconds that one run takes."""
        return _run_seconds(self.executable, {**inputs, **self.noise})


def _open_bare(stack: ExitStack, session: Session, keystore: KeyStore) -> dict[str, _Bare]:
    """Open the trusted parts outside the enclave; only the owner of the key can."""
    key = keystore.weight_key(session.bundle.id)
    device = _open_local(stack, session.bundle.plan.policy.enclave.threads)
    opened: dict[str, _Bare] = {}
    for part in session.bundle.parts:
        if isinstance(part, TrustedPart) and part.masked is None:
            proto = unseal_part(part.skeleton, part.sealed, key=key, context=part.context)
            names = tuple(node.name for node in proto.graph.node)
            reserved = noise_inputs(proto)
            whole = Part(part.name, proto, (*part.inputs, *reserved), part.outputs, names, part.batch_symbol)
            noise = {each.name: np.full(each.shape, 0.5, each.dtype) for each in reserved}
            opened[part.name] = _Bare(stack.enter_context(closing(device.compile(whole))), noise)
    return opened


def _open_whole(stack: ExitStack, model: Model, *, threads: int) -> Executable:
    (part,) = split(model, ())
    return stack.enter_context(closing(_open_local(stack, threads).compile(part)))


def _open_local(stack: ExitStack, threads: int) -> Device:
    """Open this machine as a device, with as many threads as the enclave has."""
    return stack.enter_context(closing(open_device(DeviceSpec("local", options={"threads": threads}))))


def _pipelined(session: Session, singles: Sequence[Results]) -> tuple[tuple[SpanRecord, ...], float]:
    """Run a hundred requests through the pipeline; return the first ones' way, and seconds between answers."""
    spans: list[Span] = []
    begin = time.perf_counter()
    for _ in session.stream(islice(cycle(singles), _PIPELINED_RUNS), on_span=spans.append):
        pass
    period_s = (time.perf_counter() - begin) / _PIPELINED_RUNS
    kept = (span for span in spans if span.item < _TIMELINE_ITEMS)
    return tuple(
        SpanRecord(
            stage=span.stage,
            item=span.item,
            start_s=span.start_s - begin,
            end_s=span.end_s - begin,
            device=span.device,
            ready_s=None if span.ready_s is None else span.ready_s - begin,
        )
        for span in sorted(kept, key=lambda span: (span.start_s, span.item))
    ), period_s


def _accuracy(scores: np.ndarray, labels: np.ndarray | None) -> float | None:
    if labels is None or scores.ndim != 2:  # noqa: PLR2004 - (items, classes)
        return None
    return float((scores.argmax(axis=1) == labels).mean())
