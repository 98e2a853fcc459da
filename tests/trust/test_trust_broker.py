from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from remote_cases import LOOPBACK, MEASUREMENT, REFERENCE, Proxy, key_entry, running, spec_for
from trust_parts import CONTEXT

from siniantrust.errors import (
    AttestationError,
    ChannelError,
    EnclaveLostError,
    MissingExtraError,
    SinianError,
    TrustError,
)
from siniantrust.graph import Part
from siniantrust.trust import BrokeredEnclave, Provenance, launch, seal_part
from siniantrust.trust._channel import PeerClosedError
from siniantrust.trust.attestation import ReferenceValues
from siniantrust.trust.attestation.attesters.simulated import SimulatedAttester
from siniantrust.trust.broker import BrokerClient, BrokerServer, KeyBroker, RefusedError, Store
from siniantrust.trust.broker._client import _nonce
from siniantrust.trust.broker._jwe import decrypt_key, encrypt_key
from siniantrust.trust.broker._request import (
    GivingUp,
    KeyRequest,
    new_request,
    parse_giving_up,
    parse_object,
    parse_request,
    request_binding,
)
from siniantrust.trust.broker._server import LIMITS
from siniantrust.trust.service import EnclaveService, ServiceEnclave
from siniantrust.trust.tls import Address, Identity, connect, fingerprint

ATTESTER = SimulatedAttester(MEASUREMENT)
STRANGER = SimulatedAttester("cd" * 32)
FREE = dataclasses.replace(LIMITS, connections_per_s=1e9, requests_per_s=1e9)
NONCE = bytes(range(32))


@pytest.fixture
def broker(tmp_path: Path) -> KeyBroker:
    """Return a broker with three versions of one key and one of another."""
    made = KeyBroker(Store.create(tmp_path / "broker"))
    for version in (1, 2, 3):
        made.add(key_entry(f"net-{version}", version=version, key=bytes([version]) * 32))
    made.add(key_entry("other-1", lineage="other", key=b"o" * 32))
    return made


@pytest.fixture
def address(broker: KeyBroker) -> Iterator[Address]:
    """Return the address at which the broker is served."""
    with running(BrokerServer(broker, LOOPBACK, limits=FREE)) as found:
        yield found


def _client(address: Address, broker: KeyBroker, *, attester: SimulatedAttester = ATTESTER) -> BrokerClient:
    return BrokerClient(attester, address, pin=fingerprint(broker.store.identity.spki))


def _events(broker: KeyBroker) -> list[tuple[str, str]]:
    return [(entry.event, entry.key_id) for entry in broker.store.log.entries]


class Asker:
    """An enclave that makes requests without a network."""

    def __init__(self, attester: SimulatedAttester = ATTESTER) -> None:
        self.attester = attester
        self.identity = Identity.fresh()
        self.recipient = Identity.fresh()

    def request(self, broker: KeyBroker, key_id: str, *, nonce: bytes = NONCE) -> KeyRequest:
        """Return a good request."""
        binding = request_binding(
            nonce,
            broker.store.identity.spki,
            key_id=key_id,
            enclave_key=self.identity.spki,
            recipient_key=self.recipient.spki,
        )
        return new_request(
            self.identity, self.recipient, self.attester.evidence(binding), key_id=key_id, binding=binding
        )

    def ask(self, broker: KeyBroker, key_id: str) -> bytes:
        """Ask, and open the answer."""
        answer = broker.release(self.request(broker, key_id), nonce=NONCE)
        return decrypt_key(answer, self.recipient.key, key_id=key_id)


def _refuse(broker: KeyBroker, asker: Asker, key_id: str) -> str:
    """Return why a request was refused, as the log says it."""
    with pytest.raises(RefusedError, match="its log says why"):
        asker.ask(broker, key_id)
    return next(entry for entry in reversed(broker.store.log.entries) if entry.event == "refuse").detail


def test_a_key_is_released_to_an_enclave_that_matches(broker: KeyBroker, address: Address) -> None:
    """An enclave whose evidence matches gets its key over TLS, and the decision is in the log under its name."""
    client = _client(address, broker)
    assert client.fetch("net-1") == b"\x01" * 32
    entry = broker.store.log.entries[-1]
    assert (entry.event, entry.key_id, entry.lineage, entry.version) == ("release", "net-1", "net", 1)
    assert entry.enclave == fingerprint(client._identity.spki)


def test_every_decision_is_logged(broker: KeyBroker, address: Address) -> None:
    """Additions, the start, releases, refusals and revocations are all there, in order."""
    _client(address, broker).fetch("other-1")
    with pytest.raises(TrustError, match="entry 7 of its log"):
        _client(address, broker, attester=STRANGER).fetch("net-1")
    broker.revoke_key("net-1", why="lost")
    broker.revoke_enclave("ab" * 32, why="stolen")
    adds = [("add", f"net-{version}") for version in (1, 2, 3)] + [("add", "other-1")]
    rest = [("release", "other-1"), ("refuse", "net-1"), ("revoke-key", "net-1"), ("revoke-enclave", "")]
    assert _events(broker) == [*adds, ("start", ""), *rest]


def test_an_enclave_that_differs_gets_nothing(broker: KeyBroker) -> None:
    """Another measurement is refused; the answer does not say why, the log does."""
    assert "measurement" in _refuse(broker, Asker(STRANGER), "net-1")


def test_simulated_evidence_gets_no_key_that_is_for_hardware(broker: KeyBroker) -> None:
    """A key whose entry accepts hardware only is not released to simulated evidence, whatever it states."""
    broker.add(key_entry("hard", lineage="hard", accept=(Provenance.HARDWARE,)))
    assert "is simulated, the policy accepts: hardware" in _refuse(broker, Asker(), "hard")


@pytest.mark.parametrize("key_id", ["nothing", "", "../master", "net-1/", "x" * 300, "net-1\n"])
def test_a_key_that_is_not_there_is_refused(broker: KeyBroker, key_id: str) -> None:
    """Unknown names are refused and logged, those that are no names too; none reaches a file."""
    assert _refuse(broker, Asker(), key_id) == "there is no such key"


def test_a_rollback_is_refused(broker: KeyBroker) -> None:
    """After a version was released, older ones are not; the same and newer ones are."""
    asker = Asker()
    assert asker.ask(broker, "net-2") == b"\x02" * 32
    assert _refuse(broker, asker, "net-1") == "rollback: version 1 of net, of which 2 was released already"
    assert asker.ask(broker, "net-2")
    assert asker.ask(broker, "net-3")
    assert "of which 3 was released" in _refuse(broker, Asker(), "net-2")
    assert asker.ask(broker, "other-1")


def test_a_rollback_is_refused_after_a_restart(broker: KeyBroker) -> None:
    """The counter is on the disk before the key leaves, so that no restart brings an older version back."""
    Asker().ask(broker, "net-3")
    again = KeyBroker(Store(broker.store.path))
    assert again.state().counter("net") == 3
    assert "rollback" in _refuse(again, Asker(), "net-1")
    with pytest.raises(TrustError, match="expected a version of net from 3"):
        again.add(key_entry("net-2b", version=2))


def test_the_counter_is_written_before_the_key_leaves(broker: KeyBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the log cannot be written, the key is not released."""

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(broker.store.log, "append", full)
    with pytest.raises(OSError, match="No space"):
        Asker().ask(broker, "net-1")


def test_a_revoked_key_is_released_to_nobody(broker: KeyBroker) -> None:
    """A revocation holds for those that had the key before, and after a restart; its name is never used again."""
    asker = Asker()
    asker.ask(broker, "net-1")
    broker.revoke_key("net-1", why="leaked")
    assert _refuse(broker, asker, "net-1") == "the key was revoked"
    again = KeyBroker(Store(broker.store.path))
    assert _refuse(again, Asker(), "net-1") == "the key was revoked"
    with pytest.raises(TrustError, match="it was revoked; give another name"):
        again.add(key_entry("net-1", version=9))
    with pytest.raises(TrustError, match="there is none; there are: net-1, net-2"):
        again.revoke_key("net-9", why="")


def test_a_revoked_enclave_gets_no_key(broker: KeyBroker) -> None:
    """An enclave is revoked by its key's name in the log; others go on."""
    bad, good = Asker(), Asker()
    bad.ask(broker, "net-1")
    broker.revoke_enclave(broker.store.log.entries[-1].enclave, why="stolen")
    assert _refuse(broker, bad, "net-1") == "the enclave was revoked"
    assert good.ask(broker, "net-1")
    with pytest.raises(TrustError, match="'net-1': expected the SHA-256 of its key"):
        broker.revoke_enclave("net-1", why="")


def test_an_enclave_that_holds_keys_and_fails_is_revoked(broker: KeyBroker) -> None:
    """An enclave that was given a key and later shows other evidence gets none any more, even with the first again."""
    asker = Asker()
    asker.ask(broker, "net-1")
    asker.attester = STRANGER
    assert "measurement" in _refuse(broker, asker, "net-1")
    assert _events(broker)[-2:] == [("refuse", "net-1"), ("revoke-enclave", "")]
    asker.attester = ATTESTER
    assert _refuse(broker, asker, "net-1") == "the enclave was revoked"


def test_an_enclave_that_asks_for_a_key_of_others_is_not_revoked(broker: KeyBroker) -> None:
    """A refusal for a key that an enclave never had says nothing about its integrity: it keeps what it may have."""
    asker = Asker()
    asker.ask(broker, "net-1")
    broker.add(key_entry("tdx", lineage="tdx", reference=ReferenceValues(kind="tdx", accepted=REFERENCE.accepted)))
    assert "expected evidence of kind tdx" in _refuse(broker, asker, "tdx")
    assert asker.ask(broker, "net-1")


def test_nobody_is_revoked_by_another_ones_request(broker: KeyBroker) -> None:
    """A request in another enclave's name, which is not signed by it, changes nothing for that enclave."""
    victim = Asker()
    victim.ask(broker, "net-1")
    attacker = Asker(STRANGER)
    forged = dataclasses.replace(attacker.request(broker, "net-1"), enclave_key=victim.identity.spki)
    with pytest.raises(RefusedError):
        broker.release(forged, nonce=NONCE)
    assert broker.store.log.entries[-1].detail == "it is not signed by the key that it names"
    assert broker.store.log.entries[-1].enclave == ""
    assert victim.ask(broker, "net-1")


def test_a_replayed_request_is_refused(broker: KeyBroker) -> None:
    """A request is for one nonce: sent again for another one, it is refused."""
    asker = Asker()
    request = asker.request(broker, "net-1")
    assert broker.release(request, nonce=NONCE)
    with pytest.raises(RefusedError):
        broker.release(request, nonce=os.urandom(32))
    assert broker.store.log.entries[-1].detail == "it is not signed by the key that it names"


@pytest.mark.parametrize("changed", ["key_id", "recipient_key", "evidence"])
def test_a_request_is_of_one_piece(broker: KeyBroker, changed: str) -> None:
    """The key id, the recipient and the evidence of one request cannot be put into another one."""
    asker, other = Asker(), Asker()
    request, foreign = asker.request(broker, "net-1"), other.request(broker, "net-2")
    mixed = dataclasses.replace(request, **{changed: getattr(foreign, changed)})
    with pytest.raises(RefusedError):
        broker.release(mixed, nonce=NONCE)
    assert not any(entry.event == "release" for entry in broker.store.log.entries)


def test_evidence_for_another_request_is_refused(broker: KeyBroker) -> None:
    """Evidence bound to another nonce is refused though the request around it is signed."""
    asker = Asker()
    old = asker.request(broker, "net-1", nonce=bytes(32)).evidence
    binding = asker.request(broker, "net-1").binding(NONCE, broker.store.identity.spki)
    with pytest.raises(RefusedError):
        broker.release(new_request(asker.identity, asker.recipient, old, key_id="net-1", binding=binding), nonce=NONCE)
    assert "not bound" in broker.store.log.entries[-1].detail


def test_the_time_of_appraisal_is_the_callers(broker: KeyBroker) -> None:
    """A broker can decide as of a time."""
    asker = Asker()
    assert broker.release(asker.request(broker, "net-1"), nonce=NONCE, now=datetime(2030, 1, 1, tzinfo=UTC))


def test_a_man_in_the_middle_is_refused_by_the_enclave(broker: KeyBroker, address: Address) -> None:
    """Who ends TLS between enclave and broker shows another key than the pinned one, and is sent nothing."""
    proxy = Proxy(address, identity=Identity.fresh())
    with running(proxy) as between, pytest.raises(AttestationError, match="somebody may stand between"):
        _client(between, broker).fetch("net-1")
    assert proxy.sent == b""


def test_a_man_in_the_middle_is_refused_by_the_broker(broker: KeyBroker, address: Address) -> None:
    """An enclave that pins the wrong key gets nothing through it: its evidence is bound to the key that it saw."""
    fake = Identity.fresh()
    with running(Proxy(address, identity=fake)) as between, pytest.raises(TrustError, match="its log says why"):
        BrokerClient(ATTESTER, between, pin=fingerprint(fake.spki)).fetch("net-1")
    assert not any(entry.event == "release" for entry in broker.store.log.entries)


def test_the_answer_opens_for_the_asker_only(broker: KeyBroker) -> None:
    """A released key is a JWE to the key in the request: neither another key nor another name opens it."""
    asker = Asker()
    answer = broker.release(asker.request(broker, "net-1"), nonce=NONCE)
    assert decrypt_key(answer, asker.recipient.key, key_id="net-1") == b"\x01" * 32
    with pytest.raises(TrustError, match="does not open"):
        decrypt_key(answer, Identity.fresh().key, key_id="net-1")
    with pytest.raises(TrustError, match="is for another key, 'net-1'"):
        decrypt_key(answer, asker.recipient.key, key_id="net-2")
    head, *rest = answer.split(".")
    with pytest.raises(TrustError, match="does not open"):
        decrypt_key(".".join([head, *rest[:-1], rest[-1][::-1]]), asker.recipient.key, key_id="net-1")


@pytest.mark.parametrize("text", ["", "a", "a.b.c.d.e", "....", "é"])
def test_what_is_no_jwe_is_refused(text: str) -> None:
    """An answer of another form is refused as one."""
    with pytest.raises(TrustError, match="does not open"):
        decrypt_key(text, Identity.fresh().key, key_id="net-1")


def test_a_jwe_names_its_algorithms() -> None:
    """Keys travel by ECDH-ES+A256KW and A256GCM, and no other algorithm is opened."""
    recipient = Identity.fresh().key
    from joserfc import jwe, jwk

    assert json.loads(_decoded(encrypt_key(b"k", recipient.public_key(), key_id="k1").split(".")[0])).items() >= {
        ("alg", "ECDH-ES+A256KW"),
        ("enc", "A256GCM"),
        ("kid", "k1"),
    }
    pem = recipient.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    weaker = jwe.encrypt_compact(
        {"alg": "ECDH-ES+A128KW", "enc": "A128GCM", "kid": "k1"},
        b"k",
        jwk.ECKey.import_key(pem),
        algorithms=["ECDH-ES+A128KW", "A128GCM"],
    )
    with pytest.raises(TrustError, match="does not open"):
        decrypt_key(weaker, recipient, key_id="k1")


def _decoded(text: str) -> bytes:
    import base64

    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_requests_have_a_rate(broker: KeyBroker) -> None:
    """An enclave that asks too often on one connection, or connects too often, is turned away."""
    slow = dataclasses.replace(LIMITS, connections_per_s=1e-6, sessions=2)
    with running(BrokerServer(broker, LOOPBACK, limits=slow)) as address:
        client = _client(address, broker)
        for _ in range(2):
            client.fetch("net-1")
        with pytest.raises(ChannelError, match="handshake failed"):
            client.fetch("net-1")
    strict = dataclasses.replace(FREE, requests_per_s=1e-6, burst=2)
    with running(BrokerServer(broker, LOOPBACK, limits=strict)) as address:
        connection = connect(address, limits=FREE)
        for _ in range(2):
            connection.receive()
            connection.send(b"{}")
            assert b"refused" in connection.receive()
        connection.receive()
        connection.send(b"{}")
        with pytest.raises(PeerClosedError):
            connection.receive()
        connection.close()


def test_a_request_over_the_limit_ends_the_connection(broker: KeyBroker, address: Address) -> None:
    """A request larger than any is not read."""
    before = len(broker.store.log.entries)
    connection = connect(address, limits=FREE)
    connection.receive()
    connection._socket.sendall((2 << 20).to_bytes(4, "big"))
    assert connection._socket.recv(1) == b""
    connection.close()
    assert len(broker.store.log.entries) == before


def test_a_request_that_is_none_is_logged(broker: KeyBroker, address: Address) -> None:
    """What cannot be read is refused and logged, and the next request on the connection has a nonce of its own."""
    connection = connect(address, limits=FREE)
    nonces = set()
    for raw in (b"", b"{}", b"[" * 10_000, b"\xff"):
        nonces.add(bytes(connection.receive()))
        connection.send(raw)
        assert b"refused" in connection.receive()
    connection.close()
    assert len(nonces) == 4
    assert _events(broker)[-4:] == [("refuse", "")] * 4


def test_a_broker_whose_log_is_altered_stops(broker: KeyBroker) -> None:
    """A log that is altered while the broker runs stops it; no key is released."""
    server = BrokerServer(broker, LOOPBACK, limits=FREE)
    fault: list[SinianError] = []

    def run() -> None:
        try:
            server.run()
        except TrustError as found:
            fault.append(found)

    thread = threading.Thread(target=run)
    thread.start()
    path = broker.store.path / "log.jsonl"
    path.write_bytes(path.read_bytes().replace(b"add", b"abb", 1) + b"{}\n")
    with pytest.raises(TrustError, match="cannot decide and has stopped"):
        _client(server.address, broker).fetch("net-1")
    thread.join(10)
    assert "line 6" in str(fault[0])
    with pytest.raises(TrustError, match="line 1"):
        Store(broker.store.path)


def test_a_broker_that_is_gone_is_said(broker: KeyBroker) -> None:
    """An enclave whose broker is not there, or hangs up, gets an error that says so."""
    with running(BrokerServer(broker, LOOPBACK, limits=FREE)) as address:
        client = _client(address, broker)
    with pytest.raises(EnclaveLostError, match="nothing answers there"):
        client.fetch("net-1")


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"nonce": "ab"}', b'{"nonce": "' + b"xy" * 32 + b'"}'])
def test_a_broker_that_sends_no_nonce_is_refused(raw: bytes) -> None:
    """The enclave makes evidence for 32 bytes only."""
    with pytest.raises(ChannelError, match=r"nonce"):
        _nonce(bytearray(raw))


def test_a_missing_library_is_said_at_the_start(broker: KeyBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without joserfc, neither side starts; the message is what to install."""
    monkeypatch.setitem(sys.modules, "joserfc.jwe", None)
    with pytest.raises(MissingExtraError, match=r"siniantrust\[attest\]"):
        BrokerServer(broker, LOOPBACK)
    with pytest.raises(MissingExtraError, match=r"siniantrust\[attest\]"):
        BrokerClient(ATTESTER, LOOPBACK, pin="ab" * 32)


def test_an_enclave_service_fetches_its_keys(broker: KeyBroker, address: Address, conv_part: Part) -> None:
    """A part sealed under a broker's key runs in a service whose client never holds that key."""
    import numpy as np

    sealed = seal_part(conv_part, key=b"\x02" * 32, context=CONTEXT)
    service = EnclaveService(ATTESTER, LOOPBACK, keys=lambda: _client(address, broker))
    with running(service) as where:
        enclave = launch(spec_for(where))
        assert isinstance(enclave, BrokeredEnclave)
        enclave.load_brokered("conv", sealed.skeleton, sealed.sealed, "net-2", context=CONTEXT)
        assert enclave.run("conv", {"x": np.ones((1, 3, 16, 16), np.float32)})["y"].shape == (1, 8, 16, 16)
        with pytest.raises(TrustError, match="its log says why"):
            enclave.load_brokered("conv", sealed.skeleton, sealed.sealed, "net-1", context=CONTEXT)
        broker.add(key_entry("short", lineage="short", key=b"k" * 16))
        with pytest.raises(TrustError, match="the broker's key has 16 bytes, expected 32"):
            enclave.load_brokered("conv", sealed.skeleton, sealed.sealed, "short", context=CONTEXT)
        assert enclave.alive
        enclave.close()


def test_an_enclave_that_finds_tampered_weights_ends_and_gives_up_its_keys(
    broker: KeyBroker, address: Address, conv_part: Part
) -> None:
    """The session is over, the broker has revoked it and knows why; another session attests anew and gets the key."""
    sealed = seal_part(conv_part, key=b"\x02" * 32, context=CONTEXT)
    service = EnclaveService(ATTESTER, LOOPBACK, keys=lambda: _client(address, broker))
    with running(service) as where:
        enclave, neighbour = launch(spec_for(where)), launch(spec_for(where))
        assert isinstance(enclave, BrokeredEnclave)
        assert isinstance(neighbour, BrokeredEnclave)
        neighbour.load_brokered("conv", sealed.skeleton, sealed.sealed, "net-2", context=CONTEXT)
        changed = sealed.sealed[:-1] + bytes([sealed.sealed[-1] ^ 1])
        with pytest.raises(EnclaveLostError, match=r"it ended the session .*'conv': sealed weights: they do not open"):
            enclave.load_brokered("conv", sealed.skeleton, changed, "net-2", context=CONTEXT)
        assert not enclave.alive
        *_, released, revoked = broker.store.log.entries
        assert (released.event, revoked.event) == ("release", "revoke-enclave")
        assert released.enclave == revoked.enclave
        assert "it says itself: part 'conv': sealed weights: they do not open" in revoked.detail
        assert broker.state().is_enclave_revoked(released.enclave)
        neighbour.load_brokered("again", sealed.skeleton, sealed.sealed, "net-2", context=CONTEXT)
        neighbour.close()


def test_a_session_with_keys_that_breaks_its_protocol_gives_them_up(
    broker: KeyBroker, address: Address, conv_part: Part
) -> None:
    """A frame that is none ends a session; it is revoked if it was given a key, and else there is nothing to revoke."""
    sealed = seal_part(conv_part, key=b"\x02" * 32, context=CONTEXT)
    service = EnclaveService(ATTESTER, LOOPBACK, keys=lambda: _client(address, broker))
    with running(service) as where:
        for has_key in (False, True):
            enclave = launch(spec_for(where))
            assert isinstance(enclave, ServiceEnclave)
            if has_key:
                enclave.load_brokered("conv", sealed.skeleton, sealed.sealed, "net-2", context=CONTEXT)
            before = len(broker.store.log.entries)
            enclave._connection.send(b"no message")
            with pytest.raises(EnclaveLostError, match="it ended the session"):
                enclave.run("conv", {})
            added = [entry.event for entry in broker.store.log.entries[before:]]
            assert added == (["revoke-enclave"] if has_key else [])


def test_a_session_ends_even_where_the_broker_is_gone(broker: KeyBroker, conv_part: Part) -> None:
    """Nobody has to hear that a session gives up its keys: it ends all the same."""
    sealed = seal_part(conv_part, key=b"\x02" * 32, context=CONTEXT)
    server = BrokerServer(broker, LOOPBACK, limits=FREE)
    with running(EnclaveService(ATTESTER, LOOPBACK, keys=lambda: _client(server.address, broker))) as where:
        enclave = launch(spec_for(where))
        assert isinstance(enclave, ServiceEnclave)
        with running(server):
            enclave.load_brokered("conv", sealed.skeleton, sealed.sealed, "net-2", context=CONTEXT)
        enclave._connection.send(b"no message")
        with pytest.raises(EnclaveLostError, match="it ended the session"):
            enclave.run("conv", {})


def test_nobody_gives_up_in_anothers_name(broker: KeyBroker) -> None:
    """Only an enclave itself, in answer to the broker's nonce, can say that it failed; one without keys has no say."""
    victim, attacker = Asker(), Asker()
    victim.ask(broker, "net-1")
    spki = broker.store.identity.spki
    genuine = GivingUp.by(victim.identity, "why", nonce=NONCE, broker_key=spki)
    forged = dataclasses.replace(
        GivingUp.by(attacker.identity, "why", nonce=NONCE, broker_key=spki), enclave_key=victim.identity.spki
    )
    for notice, nonce in ((forged, NONCE), (genuine, bytes(32)), (dataclasses.replace(genuine, why="x"), NONCE)):
        with pytest.raises(RefusedError):
            broker.give_up(notice, nonce=nonce)
        assert "is not signed by the enclave" in broker.store.log.entries[-1].detail
    with pytest.raises(RefusedError):
        broker.give_up(GivingUp.by(attacker.identity, "why", nonce=NONCE, broker_key=spki), nonce=NONCE)
    assert broker.store.log.entries[-1].detail == "it has nothing to give up"
    assert victim.ask(broker, "net-1")
    assert parse_giving_up(genuine.to_json()) == genuine
    broker.give_up(genuine, nonce=NONCE)
    assert _refuse(broker, victim, "net-1") == "the enclave was revoked"


# The store.


def test_a_store_is_its_owners_only(broker: KeyBroker) -> None:
    """Folders have mode 0700 and files 0600, and keys are not in the clear in any of them."""
    for path in (broker.store.path, *broker.store.path.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
        if path.is_file():
            assert b"\x02" * 32 not in path.read_bytes()
            assert ("02" * 32).encode() not in path.read_bytes()


@pytest.mark.parametrize("name", ["", "master.key", "identity.pem", "keys/net-1.json"])
def test_a_store_that_others_may_read_is_refused(broker: KeyBroker, name: str) -> None:
    """A folder or file with a wider mode is refused, with the command that mends it."""
    path = broker.store.path / name
    path.chmod(path.stat().st_mode | 0o040)
    with pytest.raises(TrustError, match=r"run: chmod [67]00"):
        Store(broker.store.path).get("net-1")


def test_a_store_is_not_made_twice(broker: KeyBroker, tmp_path: Path) -> None:
    """A store is made where nothing is, and opened where one is."""
    with pytest.raises(TrustError, match="something is there already"):
        Store.create(broker.store.path)
    with pytest.raises(TrustError, match="there is no store; make one with: sinian keys init"):
        Store(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TrustError, match="cannot be written"):
        Store.create(tmp_path / "file" / "broker")


def test_a_key_is_never_replaced(broker: KeyBroker) -> None:
    """A name is given once."""
    with pytest.raises(TrustError, match="there already and never replaced"):
        broker.add(key_entry("net-1", version=5))


@pytest.mark.parametrize("field", ["version", "lineage", "reference", "accept", "sealed", "key_id"])
def test_an_altered_key_file_is_refused(broker: KeyBroker, field: str) -> None:
    """What a key may be released for is sealed with it: a changed field refuses the key."""
    path = broker.store.path / "keys" / "net-1.json"
    fields = json.loads(path.read_bytes())
    changed = {
        "version": 9,
        "lineage": "other",
        "reference": {**fields["reference"], "kind": "tdx"},
        "accept": ["hardware", "simulated"],
        "sealed": fields["sealed"][:-2] + "00",
        "key_id": "net-2",
    }
    path.write_text(json.dumps({**fields, field: changed[field]}))
    with pytest.raises(TrustError, match="it was altered, or sealed by another broker"):
        broker.store.get("net-1")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sealed": 1}', "[" * 10_000])
def test_a_key_file_that_is_none_is_refused(broker: KeyBroker, text: str) -> None:
    """A key file of another form is refused."""
    (broker.store.path / "keys" / "net-1.json").write_text(text)
    with pytest.raises(TrustError, match="it was altered"):
        broker.store.get("net-1")


def test_a_key_file_in_anothers_place_is_refused(broker: KeyBroker) -> None:
    """A key's file is good under its own name only."""
    keys = broker.store.path / "keys"
    (keys / "net-1.json").write_bytes((keys / "net-2.json").read_bytes())
    with pytest.raises(TrustError, match="it is the file of net-2"):
        broker.store.get("net-1")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"key_id": "a/b"}, "expected a name"),
        ({"key_id": ""}, "expected a name"),
        ({"lineage": ".hidden"}, "expected a name"),
        ({"version": 0}, "expected a version from 1, found 0"),
        ({"key": b""}, "expected 1 to 4096 bytes, found 0"),
        ({"key": bytes(4097)}, "found 4097"),
    ],
)
def test_an_entry_that_cannot_be_is_refused(changes: dict[str, object], match: str) -> None:
    """Names that are paths, versions below 1 and keys without bytes are refused."""
    with pytest.raises(TrustError, match=match):
        dataclasses.replace(key_entry(), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [("master.key", b"short", "expected 32 bytes, found 5"), ("identity.pem", b"x", "expected a P-256 private key")],
)
def test_a_store_with_other_files_is_refused(broker: KeyBroker, name: str, data: bytes, match: str) -> None:
    """A master key or TLS key of another form is refused."""
    (broker.store.path / name).write_bytes(data)
    with pytest.raises(TrustError, match=match):
        Store(broker.store.path)


def test_another_master_key_opens_nothing(broker: KeyBroker) -> None:
    """With another master key not even the log's head is believed."""
    (broker.store.path / "master.key").write_bytes(bytes(32))
    with pytest.raises(TrustError, match="this broker did not write it"):
        Store(broker.store.path)


# Parsers.


def _good(broker_key: bytes = b"broker") -> KeyRequest:
    asker = Asker()
    binding = request_binding(
        NONCE, broker_key, key_id="k", enclave_key=asker.identity.spki, recipient_key=asker.recipient.spki
    )
    return new_request(asker.identity, asker.recipient, ATTESTER.evidence(binding), key_id="k", binding=binding)


GOOD = _good()
RAW = GOOD.to_json()


def test_a_request_is_read_as_it_was_written() -> None:
    """A request survives the wire, and is signed by the key that it names."""
    assert parse_request(RAW) == GOOD
    assert GOOD.is_signed(GOOD.binding(NONCE, b"broker"))
    assert not GOOD.is_signed(GOOD.binding(NONCE, b"another broker"))


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1())
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        b"",
        b"no key",
        GOOD.enclave_key[:-1],
    ],
    ids=["P-384", "nothing", "text", "cut"],
)
def test_a_key_of_another_kind_is_refused(key: bytes) -> None:
    """Only P-256 keys are read."""
    with pytest.raises(ChannelError, match="P-256"):
        parse_request(dataclasses.replace(GOOD, enclave_key=key).to_json())


def test_a_key_in_another_form_is_refused() -> None:
    """A key written in a second way would give its enclave a second name."""
    compressed = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + ec.generate_private_key(
        ec.SECP256R1()
    ).public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    with pytest.raises(ChannelError, match="not in its plain DER form"):
        parse_request(dataclasses.replace(GOOD, enclave_key=compressed).to_json())


def _parse_any(raw: bytes) -> None:
    """Parse; either it is a request that reads the same when written again, or it is refused in one line."""
    try:
        request = parse_request(raw)
    except (ChannelError, AttestationError) as refusal:
        assert "\n" not in str(refusal)  # noqa: PT017 - one of two allowed outcomes
    else:
        assert parse_request(request.to_json()) == request


def _spoil(raw: bytes, seed: int) -> bytes:
    import random

    source = random.Random(seed)
    spoiled = bytearray(raw)
    for _ in range(source.randint(1, 4)):
        place = source.randrange(len(spoiled) or 1)
        if source.random() < 0.5 and spoiled:
            spoiled[place] = source.randrange(256)
        else:
            del spoiled[place : place + source.randint(1, 30)]
    return bytes(spoiled)


@settings(max_examples=2000, deadline=None)
@given(raw=st.one_of(st.binary(max_size=300), st.integers(0, 10**9).map(lambda seed: _spoil(RAW, seed))))
def test_any_bytes_are_a_request_or_refused(raw: bytes) -> None:
    """No bytes break the parser of requests."""
    _parse_any(raw)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=100_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw=st.one_of(st.binary(max_size=300), st.integers(0, 10**9).map(lambda seed: _spoil(RAW, seed))))
def test_any_bytes_are_a_request_or_refused_at_length(raw: bytes) -> None:
    """No bytes break the parser of requests, in a hundred thousand tries."""
    _parse_any(raw)


@pytest.mark.parametrize("raw", [b"[]", b'{"a": 1}', b'{"a": "b", "c": "d"}', b'"a"', b"x" * (2 << 20)])
def test_an_object_of_another_form_is_refused(raw: bytes) -> None:
    """A message is an object of texts with exactly the names expected."""
    with pytest.raises(ChannelError, match="expected a JSON object of texts with a"):
        parse_object(raw, {"a"})
    assert parse_object(b'{"a": "b"}', {"a"}) == {"a": "b"}


def test_reference_values_say_who_may_have_a_key(broker: KeyBroker) -> None:
    """A key is for one kind of evidence; another kind is refused before it is read."""
    broker.add(key_entry("tdx", lineage="tdx", reference=ReferenceValues(kind="tdx", accepted=REFERENCE.accepted)))
    assert "expected evidence of kind tdx" in _refuse(broker, Asker(), "tdx")


def test_a_plain_connection_is_turned_away(address: Address) -> None:
    """Who does not speak TLS gets no nonce."""
    with socket.create_connection(address) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
        raw.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert b"nonce" not in raw.recv(1000)
