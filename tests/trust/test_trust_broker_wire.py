"""The broker on the network: TLS, the form of its answers, limits, and what breaks on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import sys
import threading

import pytest
from broker_asker import ATTESTER, FREE, NONCE, Asker, client_of, events_of
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from remote_cases import LOOPBACK, Proxy, running

from siniantrust.errors import (
    AttestationError,
    ChannelError,
    EnclaveLostError,
    MissingExtraError,
    SinianError,
    TrustError,
)
from siniantrust.trust._channel import PeerClosedError
from siniantrust.trust.broker import BrokerClient, BrokerServer, KeyBroker, Store
from siniantrust.trust.broker._client import _nonce
from siniantrust.trust.broker._jwe import decrypt_key, encrypt_key
from siniantrust.trust.broker._server import LIMITS
from siniantrust.trust.tls import Address, Identity, connect, fingerprint


def test_a_man_in_the_middle_is_refused_by_the_enclave(broker: KeyBroker, broker_address: Address) -> None:
    """Who ends TLS between enclave and broker shows another key than the pinned one, and is sent nothing."""
    proxy = Proxy(broker_address, identity=Identity.fresh())
    with running(proxy) as between, pytest.raises(AttestationError, match="somebody may stand between"):
        client_of(between, broker).fetch("net-1")
    assert proxy.sent == b""


def test_a_man_in_the_middle_is_refused_by_the_broker(broker: KeyBroker, broker_address: Address) -> None:
    """An enclave that pins the wrong key gets nothing through it: its evidence is bound to the key that it saw."""
    fake = Identity.fresh()
    with running(Proxy(broker_address, identity=fake)) as between, pytest.raises(TrustError, match="its log says why"):
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
        client = client_of(address, broker)
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


def test_a_request_over_the_limit_ends_the_connection(broker: KeyBroker, broker_address: Address) -> None:
    """A request larger than any is not read."""
    before = len(broker.store.log.entries)
    connection = connect(broker_address, limits=FREE)
    connection.receive()
    connection._socket.sendall((2 << 20).to_bytes(4, "big"))
    assert connection._socket.recv(1) == b""
    connection.close()
    assert len(broker.store.log.entries) == before


def test_a_request_that_is_none_is_logged(broker: KeyBroker, broker_address: Address) -> None:
    """What cannot be read is refused and logged, and the next request on the connection has a nonce of its own."""
    connection = connect(broker_address, limits=FREE)
    nonces = set()
    for raw in (b"", b"{}", b"[" * 10_000, b"\xff"):
        nonces.add(bytes(connection.receive()))
        connection.send(raw)
        assert b"refused" in connection.receive()
    connection.close()
    assert len(nonces) == 4
    assert events_of(broker)[-4:] == [("refuse", "")] * 4


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
        client_of(server.address, broker).fetch("net-1")
    thread.join(10)
    assert "line 6" in str(fault[0])
    with pytest.raises(TrustError, match="line 1"):
        Store(broker.store.path)


def test_a_broker_that_is_gone_is_said(broker: KeyBroker) -> None:
    """An enclave whose broker is not there, or hangs up, gets an error that says so."""
    with running(BrokerServer(broker, LOOPBACK, limits=FREE)) as address:
        client = client_of(address, broker)
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


def test_a_plain_connection_is_turned_away(broker_address: Address) -> None:
    """Who does not speak TLS gets no nonce."""
    with socket.create_connection(broker_address) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
        raw.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert b"nonce" not in raw.recv(1000)
