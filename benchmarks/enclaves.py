"""What each enclave provider takes that this machine has: launch, attest, load, call, seal; none is in hardware."""

from __future__ import annotations

import os
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from onnx import TensorProto, helper
from results_file import Bar, Outcome
from timing import in_turns, median_ms, seconds

from siniantrust.errors import SinianError
from siniantrust.graph import Part, Tensor, enumerate_cuts, load_model, split
from siniantrust.trust import PROTECTIONS, Enclave, EnclaveSpec, Provenance, launch, seal_part
from siniantrust.trust.attestation import Attester, ReferenceValues
from siniantrust.trust.attestation.attesters.simulated import SimulatedAttester, package_measurement
from siniantrust.trust.attestation.tpm2 import Event, Swtpm, Tpm, Tpm2Attester, accepted_events, begin_enrolment
from siniantrust.trust.broker import BrokerClient, BrokerServer, KeyBroker, KeyEntry, Store
from siniantrust.trust.service import EnclaveService
from siniantrust.trust.tls import Address, Limits, fingerprint

_DEMO = Path(__file__).resolve().parents[1] / "src/siniantrust/demo/scenes.onnx"
_CUT = "/1/1.2/Relu_output_0"
_CONTEXT = b"benchmark"
_BAR_S = 1.0
_LOOPBACK = Address("127.0.0.1", 0)
_UNBOUNDED = Limits(connections_per_s=1e9, requests_per_s=1e9, burst=1_000_000_000)
_ANYTHING_MISSING = tuple(protection.name for protection in PROTECTIONS)
_EVENT = Event("package", bytes.fromhex(package_measurement()))
_SLOW = ("optee",)
_NO_HARDWARE = (
    "Nothing here is the overhead of a hardware TEE, which encrypts memory, pages it, and leaves and enters its "
    "enclave by instructions of its own: no row has the provenance *hardware*, and `cvm` and `gramine`, which would, "
    "were never launched on such a machine."
)
_SERVICE = (
    "`service` is the enclave service in this process, over TLS on this machine. An *empty* call is that of a part "
    "that returns its one input."
)


def run(*, quick: bool) -> Outcome:
    """Measure every provider that can be launched here; the others are named."""
    rows: list[dict[str, object]] = []
    remarks = [_NO_HARDWARE, _SERVICE]
    bars = []
    with ExitStack() as stack:
        stack.enter_context(_own_state())
        model = load_model(_DEMO)
        cut = next(cut for cut in enumerate_cuts(model).cuts if cut.tensors == (_CUT,))
        part = split(model, [cut])[0]
        for name, stand in {
            "process": _process,
            "service": _simulated_service,
            "service, TPM evidence": _tpm_service,
            "optee": _optee,
        }.items():
            try:
                spec, release = stack.enter_context(stand())
                found = _measure(spec, part, release, quick=quick)
            except SinianError as fault:
                remarks.append(f"`{name}` was not measured: {fault}.")
                continue
            provenance = spec.accept[0]
            rows += [_row(name, provenance, step, values) for step, values in found.items()]
            if release is not None:
                released_s = median_ms(found["attest and get a key from the broker"]) / 1e3
                bars.append(Bar("attest and release a key over swtpm, seconds (emulated)", _BAR_S, released_s))
    return Outcome(
        title="Enclave providers",
        method=(
            "Each provider in turn, its calls in turns with each other; a launch includes its attestation. Part 1 is "
            "the demo's first two layers (12 KiB in, 32 KiB out). Medians, with the quartiles beside them. The "
            "provenance of each row says what its enclave is worth."
        ),
        rows=rows,
        bars=bars,
        remarks=remarks,
    )


def _row(name: str, provenance: Provenance, step: str, values_s: np.ndarray) -> dict[str, object]:
    low_ms, high_ms = (float(value) for value in np.quantile(values_s, (0.25, 0.75)) * 1e3)
    return {
        "provider": name,
        "provenance": str(provenance),
        "step": step,
        "median, ms": median_ms(values_s),
        "quartiles, ms": f"{low_ms:.4g} to {high_ms:.4g}",
        "times": len(values_s),
    }


def _measure(
    spec: EnclaveSpec, part: Part, release: Callable[[], object] | None, *, quick: bool
) -> dict[str, np.ndarray]:
    """Return the seconds of each step."""
    slow = spec.provider in _SLOW
    launches = 1 if quick else 3 if slow else 11
    found: dict[str, np.ndarray] = {}
    launch(spec).close()  # what is made at first use, such as an application's file
    found["launch"] = np.asarray([_launch_s(spec) for _ in range(launches)])
    with closing(launch(spec)) as enclave:
        x = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
        load = partial(_load, enclave, "part", part)
        load()
        _load(enclave, "empty", _empty())
        data = secrets.token_bytes(32)
        sealed = enclave.seal(data, context=_CONTEXT)
        calls: Mapping[str, Callable[[], object]] = {
            "attest (fresh evidence)": partial(enclave.evidence, os.urandom(32)),
            "load Part 1": load,
            "call, empty": partial(enclave.run, "empty", {"x": np.zeros((1, 1), np.float32)}),
            "call, Part 1": partial(enclave.run, "part", {"tile": x}),
            "seal 32 bytes": partial(enclave.seal, data, context=_CONTEXT),
            "unseal 32 bytes": partial(enclave.unseal, sealed, context=_CONTEXT),
            **({} if release is None else {"attest and get a key from the broker": release}),
        }
        turns = 2 if quick else 10 if slow else 50
        found |= in_turns(calls, turns=turns, warm_up=1 if quick or slow else 3)
    return found


def _launch_s(spec: EnclaveSpec) -> float:
    enclaves: list[Enclave] = []
    try:
        return seconds(lambda: enclaves.append(launch(spec)))
    finally:
        for enclave in enclaves:
            enclave.close()


def _load(enclave: Enclave, name: str, part: Part) -> None:
    key = secrets.token_bytes(32)
    sealed = seal_part(part, key=key, context=_CONTEXT)
    enclave.load(name, sealed.skeleton, sealed.sealed, key, context=_CONTEXT)


def _empty() -> Part:
    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "empty",
        [helper.make_tensor_value_info("x", kind, [1, 1])],
        [helper.make_tensor_value_info("y", kind, [1, 1])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x, y = (Tensor(name, "float32", (1, 1)) for name in ("x", "y"))
    return Part("empty", proto, (x,), (y,), (), None)


@contextmanager
def _own_state() -> Iterator[None]:
    """Keep the simulated platform's secret out of the user's files."""
    before = os.environ.get("XDG_DATA_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_DATA_HOME"] = folder
        try:
            yield
        finally:
            del os.environ["XDG_DATA_HOME"]
            if before is not None:
                os.environ["XDG_DATA_HOME"] = before


_Stand = tuple[EnclaveSpec, Callable[[], object] | None]


@contextmanager
def _process() -> Iterator[_Stand]:
    yield EnclaveSpec(memory_bytes=256 << 20, accept=(Provenance.SIMULATED,), allow_missing=_ANYTHING_MISSING), None


@contextmanager
def _optee() -> Iterator[_Stand]:
    yield EnclaveSpec(provider="optee", memory_bytes=10 << 20, accept=(Provenance.EMULATED,)), None


@contextmanager
def _serving(attester: Attester, provenance: Provenance, reference: ReferenceValues) -> Iterator[EnclaveSpec]:
    service = EnclaveService(attester, _LOOPBACK, limits=_UNBOUNDED)
    with _running(service):
        yield EnclaveSpec(
            provider="service",
            memory_bytes=256 << 20,
            accept=(provenance,),
            address=str(service.address),
            reference=reference,
        )


@contextmanager
def _running(server: EnclaveService | BrokerServer) -> Iterator[None]:
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.close()
        thread.join()


@contextmanager
def _simulated_service() -> Iterator[_Stand]:
    measurement = package_measurement()
    accepted = {"provider": frozenset({"service"}), "measurement": frozenset({measurement})}
    reference = ReferenceValues(kind="simulated", accepted=accepted)
    with _serving(SimulatedAttester(measurement), Provenance.SIMULATED, reference) as spec:
        yield spec, None


@contextmanager
def _tpm_service() -> Iterator[_Stand]:
    """Yield a service beside an emulated TPM, and the release of a key to it by a key broker."""
    with Swtpm() as emulator, Tpm(emulator.where) as tpm, tempfile.TemporaryDirectory() as folder:
        attester = Tpm2Attester(tpm)
        attester.measure(_EVENT)
        reference = _enrol(attester)
        broker = KeyBroker(Store.create(Path(folder, "broker")))
        accept = (Provenance.EMULATED,)
        broker.add(KeyEntry(key_id="k", lineage="k", version=1, key=bytes(32), reference=reference, accept=accept))
        server = BrokerServer(broker, _LOOPBACK, limits=_UNBOUNDED)
        with _running(server), _serving(attester, Provenance.EMULATED, reference) as spec:
            client = BrokerClient(attester, server.address, pin=fingerprint(broker.store.identity.spki))
            yield spec, partial(client.fetch, "k")


def _enrol(attester: Tpm2Attester) -> ReferenceValues:
    """Enrol the TPM, whose endorsement key is its own anchor; return the reference values for it."""
    enroller, form = Ed25519PrivateKey.generate(), (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    anchors = {
        "emulated:swtpm": attester.identity().ek.public_key().public_bytes(*form),
        "enrolment:benchmark": enroller.public_key().public_bytes(*form),
    }
    now = datetime.now(UTC)
    pending = begin_enrolment(attester.identity(), anchors=anchors, now=now)
    attester.enrolment = pending.complete(attester.activate(pending.challenge), signing_key=enroller, now=now)
    return ReferenceValues(
        kind="tpm2",
        accepted=accepted_events([_EVENT]) | {f"pcr-{pcr}": frozenset({"00" * 32}) for pcr in (0, 2, 4, 7)},
        at_least={"clock-ms": 0, "reset-count": 0, "restart-count": 0},
        anchors=anchors,
    )
