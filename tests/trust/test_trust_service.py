from __future__ import annotations

import contextlib
import math
import os
import secrets
import threading
from collections.abc import Iterator

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from remote_cases import LOOPBACK, MEASUREMENT, REFERENCE, Proxy, running, spec_for
from trust_parts import CONTEXT, LoadPart, MakePart

from siniantrust.errors import (
    AttestationError,
    ChannelError,
    DataError,
    EnclaveError,
    EnclaveLostError,
    SinianError,
    TrustError,
)
from siniantrust.graph import Part
from siniantrust.trust import (
    BrokeredEnclave,
    Enclave,
    EnclaveSpec,
    Provenance,
    launch,
    measure_crossing,
    seal_part,
)
from siniantrust.trust._codec import Message, Operation, decode, encode
from siniantrust.trust.attestation import Attester, EvidenceBundle, ReferenceValues
from siniantrust.trust.attestation.attesters.simulated import SimulatedAttester
from siniantrust.trust.process import _serve
from siniantrust.trust.service import EnclaveService, _client
from siniantrust.trust.service._limits import limits_from_json, limits_to_json
from siniantrust.trust.tls import Address, Connection, Identity, Limits, Server

_FLOAT = TensorProto.FLOAT
ATTESTER = SimulatedAttester(MEASUREMENT)


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    """Return the address of a service for all tests of this module."""
    with running(EnclaveService(ATTESTER, LOOPBACK, limits=Limits(connections_per_s=1e9))) as found:
        yield found


@pytest.fixture
def enclave(address: Address) -> Iterator[Enclave]:
    """Return a session of the service."""
    with contextlib.closing(launch(spec_for(address))) as found:
        yield found


def test_it_is_an_enclave(enclave: Enclave, address: Address) -> None:
    """A session has what the protocols ask for; its provenance is its evidence's."""
    assert isinstance(enclave, BrokeredEnclave)
    assert enclave.alive
    assert enclave.provenance is Provenance.SIMULATED
    info = enclave.info()
    assert (info.provider, info.pid, info.memory_limit_bytes) == ("service", None, 256 << 20)
    assert info.protections == {"executables": "active"}
    assert str(address.port) in str(address)


@pytest.mark.parametrize("batch", [1, 5])
def test_outputs_equal_onnx_runtime(enclave: Enclave, load_part: LoadPart, conv_part: Part, batch: int) -> None:
    """A part in the service gives the very bits that ONNX Runtime gives here, for any batch size."""
    load_part(enclave, "conv", conv_part)
    x = np.random.default_rng(batch).normal(size=(batch, 3, 16, 16)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    bare = onnxruntime.InferenceSession(
        conv_part.proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    assert np.array_equal(enclave.run("conv", {"x": x})["y"], bare.run(None, {"x": x})[0])


def test_threads_share_a_session(enclave: Enclave, load_part: LoadPart, make_part: MakePart) -> None:
    """Calls from several threads at once each get their own answer."""
    part = make_part([helper.make_node("Neg", ["x"], ["y"])], [("x", _FLOAT, ["n"])], [("y", _FLOAT, ["n"])])
    load_part(enclave, "neg", part)
    wrong: list[int] = []

    def work(number: int) -> None:
        for step in range(10):
            x = np.full(1 + number * 997 + step, number * 100 + step, np.float32)
            if not np.array_equal(enclave.run("neg", {"x": x})["y"], -x):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong


def test_what_does_not_fit_is_refused_and_the_session_goes_on(
    enclave: Enclave, load_part: LoadPart, conv_part: Part
) -> None:
    """Wrong inputs, unknown parts and seals that do not open are refused by name, each as its own kind of error."""
    load_part(enclave, "conv", conv_part)
    sealed = seal_part(conv_part, key=bytes(32), context=CONTEXT)
    with pytest.raises(DataError, match="expected inputs"):
        enclave.run("conv", {})
    with pytest.raises(DataError, match="does not travel"):
        enclave.run("conv", {"x": np.array(["text"])})
    with pytest.raises(EnclaveError, match="no part 'nothing' is loaded"):
        enclave.run("nothing", {})
    with pytest.raises(TrustError, match="do not open"):
        enclave.load("wrong", sealed.skeleton, sealed.sealed, secrets.token_bytes(32), context=CONTEXT)
    with pytest.raises(EnclaveError, match="without a key broker"):
        enclave.load_brokered("conv", sealed.skeleton, sealed.sealed, "k1", context=CONTEXT)  # type: ignore[attr-defined]
    assert enclave.run("conv", {"x": np.ones((1, 3, 16, 16), np.float32)})


def test_sessions_do_not_see_each_other(address: Address, load_part: LoadPart, conv_part: Part) -> None:
    """A part that one session loaded is not there for another one, which has another key."""
    with contextlib.closing(launch(spec_for(address))) as first, contextlib.closing(launch(spec_for(address))) as other:
        load_part(first, "conv", conv_part)
        with pytest.raises(EnclaveError, match="no part 'conv' is loaded"):
            other.run("conv", {"x": np.ones((1, 3, 16, 16), np.float32)})
        nonce = os.urandom(32)
        assert first.evidence(nonce).enclave_public_key != other.evidence(nonce).enclave_public_key


def test_parts_are_counted(
    enclave: Enclave, load_part: LoadPart, conv_part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session holds so many parts; loading one again in its place is no further part."""
    monkeypatch.setattr(_serve, "MAX_PARTS", 2)
    for name in ("one", "two", "two"):
        load_part(enclave, name, conv_part)
    with pytest.raises(EnclaveError, match="2 parts are loaded, the limit; part 'three' is one too many"):
        load_part(enclave, "three", conv_part)


def test_crossing_can_be_measured(enclave: Enclave) -> None:
    """The planner's measure of a crossing works on a service as on any enclave."""
    assert measure_crossing(enclave).base_s >= 0


def test_fresh_evidence_is_bound_to_the_nonce(enclave: Enclave) -> None:
    """Evidence of a running session carries the nonce and is appraised again."""
    nonce = os.urandom(32)
    first, second = enclave.evidence(nonce), enclave.evidence(os.urandom(32))
    assert first.nonce == nonce
    assert first.report_data != second.report_data
    assert MEASUREMENT in first.measurement
    with pytest.raises(EnclaveError, match="32 bytes"):
        enclave.evidence(b"short")


class Replaying:
    """An attester that answers every challenge with its first evidence."""

    kind = "simulated"

    def __init__(self) -> None:
        self._first: EvidenceBundle | None = None

    def evidence(self, binding: bytes) -> EvidenceBundle:
        """Return what was returned first."""
        self._first = self._first or ATTESTER.evidence(binding)
        return self._first


def _refused(attester: Attester, match: str, *, spec: EnclaveSpec | None = None) -> None:
    with (
        running(EnclaveService(attester, LOOPBACK)) as address,
        pytest.raises(AttestationError, match=match),
    ):
        launch(spec or spec_for(address))


@pytest.mark.parametrize("same_key", [False, True])
def test_replayed_evidence_is_refused(
    same_key: bool,  # noqa: FBT001 - a case
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Evidence that was good for one session is refused in the next one, for its key and for its nonce alone too."""
    if same_key:
        identity = Identity.fresh()
        monkeypatch.setattr(Identity, "fresh", lambda: identity)
    attester = Replaying()
    with running(EnclaveService(attester, LOOPBACK)) as address:
        launch(spec_for(address)).close()
        with pytest.raises(AttestationError, match="not bound"):
            launch(spec_for(address))


def test_evidence_that_fails_later_ends_the_session(load_part: LoadPart, conv_part: Part) -> None:
    """An enclave whose fresh evidence does not pass is closed, and its keys go with it."""
    with running(EnclaveService(Replaying(), LOOPBACK)) as address:
        enclave = launch(spec_for(address))
        load_part(enclave, "conv", conv_part)
        with pytest.raises(AttestationError, match="not bound"):
            enclave.evidence(os.urandom(32))
        assert not enclave.alive
        with pytest.raises(AttestationError, match="closed, because its evidence failed"):
            enclave.run("conv", {"x": np.ones((1, 3, 16, 16), np.float32)})


def test_a_man_in_the_middle_is_refused(address: Address) -> None:
    """Who ends TLS with another key and passes all else on is found out by the evidence, before any key is sent."""
    proxy = Proxy(address, identity=Identity.fresh())
    with running(proxy) as between, pytest.raises(AttestationError, match="not bound"):
        launch(spec_for(between))
    assert b"nonce" in proxy.sent
    assert b"skeleton" not in proxy.sent


def test_a_bystander_that_only_passes_bytes_on_is_none(address: Address) -> None:
    """Through a proxy that cannot read, a session works as without it: the refusal above is for the other key."""
    with running(Proxy(address)) as between, contextlib.closing(launch(spec_for(between))) as enclave:
        assert enclave.evidence(os.urandom(32))


def test_another_measurement_is_refused() -> None:
    """An enclave that runs something else is refused."""
    _refused(SimulatedAttester("cd" * 32), "measurement")


def test_another_kind_of_evidence_is_refused() -> None:
    """Evidence of a kind that the reference values are not for is refused before it is read."""

    class Foreign:
        kind = "sgx"

        def evidence(self, _binding: bytes) -> EvidenceBundle:
            """Return something of another kind."""
            return EvidenceBundle(kind="sgx", body=b"quote")

    _refused(Foreign(), "expected evidence of kind simulated")


def test_evidence_that_cannot_be_made_is_refused() -> None:
    """Where the platform gives no evidence, its reason arrives."""

    class Broken:
        kind = "simulated"

        def evidence(self, _binding: bytes) -> EvidenceBundle:
            """Refuse."""
            raise AttestationError("/dev/nothing: cannot be read")

    with running(EnclaveService(Broken(), LOOPBACK)) as address, pytest.raises(TrustError, match="/dev/nothing"):
        launch(spec_for(address))


def test_simulated_evidence_is_refused_by_default(address: Address) -> None:
    """A policy that says nothing accepts hardware only."""
    with pytest.raises(AttestationError, match=r'simulated.*\[enclave\] accept = \["simulated"\]'):
        launch(spec_for(address, accept=(Provenance.HARDWARE,)))


def test_nothing_is_accepted_without_reference_values(address: Address) -> None:
    """Neither an address nor reference values are made up."""
    with pytest.raises(AttestationError, match="nothing is accepted without reference values"):
        launch(EnclaveSpec(provider="service", memory_bytes=1, address=str(address)))
    with pytest.raises(EnclaveError, match="where it runs is not said"):
        launch(EnclaveSpec(provider="service", memory_bytes=1, reference=REFERENCE))


def test_reference_values_that_say_too_little_are_refused(address: Address) -> None:
    """Evidence of which only a part is compared is not affirmed."""
    spec = EnclaveSpec(
        provider="service",
        memory_bytes=1,
        accept=(Provenance.SIMULATED,),
        address=str(address),
        reference=ReferenceValues(kind="simulated", accepted={"provider": frozenset({"service"})}),
    )
    with pytest.raises(AttestationError, match="evidence is not affirmed: executables is not"):
        launch(spec)


@pytest.mark.parametrize(("provider", "kinds"), [("cvm", "tdx or sev-snp"), ("gramine", "sgx")])
def test_a_simulated_service_is_never_a_cvm_or_gramine(address: Address, provider: str, kinds: str) -> None:
    """The hardware's providers admit their own kinds of evidence only, whatever the policy accepts."""
    with pytest.raises(AttestationError, match=f"expected reference values of kind {kinds}, found 'simulated'"):
        launch(spec_for(address, provider=provider, accept=tuple(Provenance)))
    with pytest.raises(AttestationError, match="is hardware, the policy accepts: simulated"):
        launch(spec_for(address, provider=provider))


def test_a_request_over_the_limit_is_refused_here(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request larger than a session takes is refused before it is sent, and the session goes on."""
    monkeypatch.setattr(_client, "_LIMITS", Limits(payload_bytes=1000))
    with contextlib.closing(launch(spec_for(address))) as enclave:
        with pytest.raises(DataError, match=r"part x: .* 1024 bytes of tensors are over the limit of 1000"):
            enclave.run("x", {"x": np.zeros(256, np.float32)})
        with pytest.raises(EnclaveError, match=r"part x: .* over the limit"):
            enclave.load("x", bytes(1001), b"", bytes(32), context=CONTEXT)
        assert enclave.evidence(os.urandom(32))


def test_a_service_states_its_limits() -> None:
    """The client knows what the service grants, and refuses by itself what would end the session."""
    granted = Limits(frame_bytes=100, payload_bytes=1000, sessions=3, requests_per_s=7, idle_s=8, lifetime_s=9)
    with (
        running(EnclaveService(ATTESTER, LOOPBACK, limits=granted)) as address,
        contextlib.closing(launch(spec_for(address))) as enclave,
    ):
        limits = enclave.limits()
        assert (limits.message_bytes, limits.tensors_bytes, limits.sessions) == (100, 1000, 3)
        assert (limits.requests_per_s, limits.idle_s, limits.lifetime_s) == (7, 8, 9)
        assert limits.memory_bytes is None
        with pytest.raises(DataError, match="1024 bytes of tensors are over the limit of 1000, which the service"):
            enclave.run("x", {"x": np.zeros(256, np.float32)})
        with pytest.raises(DataError, match="bytes of a message are over the limit of 100, which the service"):
            enclave.run("n" * 100, {})
        assert enclave.alive


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{}", b"\xff", limits_to_json(Limits(), ATTESTER).replace(b"16", b"-1"), b"{" * 5000],
    ids=["nothing", "a list", "no fields", "no text", "negative", "deep"],
)
def test_limits_that_are_none_are_refused(raw: bytes) -> None:
    """A service that states no limits, or negative ones, is refused."""
    with pytest.raises(ChannelError, match="limits: expected those that a service states"):
        limits_from_json(raw)


def test_limits_are_read_as_written() -> None:
    """What has no limit is said to have none."""
    found = limits_from_json(limits_to_json(Limits(idle_s=math.inf, requests_per_s=math.inf), ATTESTER))
    assert (found.idle_s, found.requests_per_s, found.lifetime_s) == (None, None, 12 * 3600.0)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(payload_bytes=1000), "1024 bytes of tensors are over the limit of 1000"),
        (Limits(requests_per_s=1e-6, burst=3), "over 1e-06 requests a second"),
        (Limits(frame_bytes=64), "over the limit of 64"),
    ],
    ids=["payload", "rate", "frame"],
)
def test_a_service_names_the_limit_that_ended_a_session(limits: Limits, reason: str) -> None:
    """A request over a limit of the service ends the session; the client learns which limit, and that it can go on."""
    with running(EnclaveService(ATTESTER, LOOPBACK, limits=limits)) as address:
        enclave = launch(spec_for(address))
        enclave._limits = None  # type: ignore[attr-defined] # a client that does not heed them
        with pytest.raises(EnclaveError, match="no part"):
            enclave.run("x", {})
        with pytest.raises(EnclaveLostError, match=f"it ended the session .*{reason}"):
            enclave.run("a part whose name alone is longer than any part's", {"x": np.zeros(256, np.float32)})
        assert not enclave.alive


def test_a_session_that_is_silent_too_long_is_lost() -> None:
    """After the idle time, the next call says that the enclave is lost and can be launched again."""
    with running(EnclaveService(ATTESTER, LOOPBACK, limits=Limits(idle_s=2.0))) as address:
        enclave = launch(spec_for(address))
        threading.Event().wait(3.0)
        with pytest.raises(EnclaveLostError, match=r"launch it again|ended the session"):
            enclave.run("x", {})
        assert not enclave.alive
        launch(spec_for(address)).close()


def test_a_service_that_stops_is_lost() -> None:
    """When the service is gone, calls say so, and calls after that too."""
    service = EnclaveService(ATTESTER, LOOPBACK)
    with running(service) as address:
        enclave = launch(spec_for(address))
    for _ in range(2):
        with pytest.raises(EnclaveLostError, match="launch it again"):
            enclave.run("x", {})


def test_calls_after_close_are_refused(address: Address) -> None:
    """A closed session refuses every call; closing it again does nothing."""
    enclave = launch(spec_for(address))
    enclave.close()
    enclave.close()
    assert not enclave.alive
    for call in (lambda: enclave.run("x", {}), lambda: enclave.evidence(bytes(32))):
        with pytest.raises(EnclaveError, match="closed"):
            call()


@pytest.mark.parametrize(
    ("answer", "error", "match"),
    [
        (encode(Message(Operation.RUN, "x")), ChannelError, "RUN, which is no answer"),
        (b"garbage", ChannelError, "channel: "),
        (encode(Message(Operation.DONE)), AttestationError, "expected"),
    ],
    ids=["request", "garbage", "no evidence"],
)
def test_answers_that_are_none_are_refused(answer: bytes, error: type[SinianError], match: str) -> None:
    """A server that answers something else than evidence is refused."""

    def serve(connection: Connection, _identity: Identity) -> None:
        message = decode(bytes(connection.receive()))
        connection.receive_payload([memoryview(bytearray(spec.size_bytes)) for spec in message.tensors])
        connection.send(answer)

    server = Server(LOOPBACK, limits=Limits(), identity=Identity.fresh, serve=serve)
    with running(server) as address, pytest.raises(error, match=match):
        launch(spec_for(address))
