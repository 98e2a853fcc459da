from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from remote_cases import LOOPBACK, Proxy, running

from siniantrust.errors import AttestationError, ChannelError, EnclaveLostError, TrustError
from siniantrust.trust._channel import PeerClosedError
from siniantrust.trust.tls import (
    Address,
    Connection,
    Identity,
    Limits,
    Server,
    TokenBucket,
    connect,
    fingerprint,
    parse_address,
)

PATIENT = Limits(connections_per_s=inf, idle_s=30.0)
IDENTITY = Identity.fresh()


def _echo(connection: Connection, _identity: Identity) -> None:
    while True:
        connection.send(bytes(connection.receive()))


class Ending:
    """Serves by echoing; keeps why each connection ended."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.ended = threading.Event()

    def __call__(self, connection: Connection, identity: Identity) -> None:
        """Serve one connection."""
        try:
            _echo(connection, identity)
        except (ChannelError, PeerClosedError) as fault:
            self.reasons.append(str(fault) or type(fault).__name__)
            raise
        finally:
            self.ended.set()


def _server(
    limits: Limits = PATIENT, serve: Callable[[Connection, Identity], None] = _echo, *, identity: Identity = IDENTITY
) -> Server:
    return Server(LOOPBACK, limits=limits, identity=lambda: identity, serve=serve)


def test_frames_pass_both_ways() -> None:
    """Frames of any size up to the limit, and what follows them, arrive as they were sent, by TLS 1.3."""
    with running(_server()) as address:
        connection = connect(address, limits=PATIENT)
        assert connection._socket.version() == "TLSv1.3"
        for frame in (b"", b"a", os.urandom(200_000)):
            connection.send(frame)
            assert connection.receive() == frame
        connection.close()


def test_a_payload_follows_its_frame() -> None:
    """The bytes behind a frame land in the places that the receiver names."""

    def serve(connection: Connection, _identity: Identity) -> None:
        places = [memoryview(bytearray(3)), memoryview(bytearray(2))]
        assert connection.receive() == b"head"
        connection.receive_payload(places)
        connection.send(bytes(places[1]) + bytes(places[0]))

    with running(_server(serve=serve)) as address:
        connection = connect(address, limits=PATIENT)
        connection.send(b"head", [memoryview(b"abc"), memoryview(b"de")])
        assert connection.receive() == b"deabc"
        connection.close()


def test_the_client_sees_the_servers_key() -> None:
    """What the client compares evidence with is the key in the certificate that it was shown."""
    with running(_server()) as address:
        connection = connect(address, limits=PATIENT, pin=fingerprint(IDENTITY.spki))
        assert connection.peer_spki == IDENTITY.spki
        connection.close()


def test_a_swapped_certificate_is_refused_by_the_pin() -> None:
    """A server with another key than the pinned one is refused before anything is sent."""
    ending = Ending()
    with running(_server(serve=ending, identity=Identity.fresh())) as address:
        with pytest.raises(AttestationError, match="somebody may stand between"):
            connect(address, limits=PATIENT, pin=fingerprint(IDENTITY.spki))
        assert ending.ended.wait(10)
    assert ending.reasons == ["PeerClosedError"]


def test_an_older_tls_is_refused() -> None:
    """A client that speaks TLS 1.2 at most gets no connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        running(_server()) as address,
        socket.create_connection(address) as raw,
        pytest.raises(ssl.SSLError, match="protocol version"),
    ):
        context.wrap_socket(raw)


def test_a_server_without_tls_is_refused() -> None:
    """A client that meets something else than TLS says so."""
    with socket.create_server(LOOPBACK) as listener:

        def answer() -> None:
            raw, _ = listener.accept()
            with raw:
                raw.recv(10)
                raw.sendall(b"220 hello\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ChannelError, match=r"TLS 1\.3 handshake failed"):
            connect(Address(*listener.getsockname()[:2]), limits=PATIENT)
        thread.join(10)


def test_nothing_at_the_address_is_said() -> None:
    """Where nothing listens, the error names the address."""
    with socket.create_server(LOOPBACK) as listener:
        address = Address(*listener.getsockname()[:2])
    with pytest.raises(EnclaveLostError, match=f"{address}: nothing answers there"):
        connect(address, limits=PATIENT)


def test_a_replayed_handshake_reaches_nothing() -> None:
    """All that a client once sent, sent again byte for byte, makes no second session and no second request."""
    served: list[bytes] = []

    def serve(connection: Connection, _identity: Identity) -> None:
        while True:
            served.append(bytes(connection.receive()))
            connection.send(b"done")

    with running(_server(serve=serve)) as address:
        proxy = Proxy(address)
        with running(proxy) as between:
            connection = connect(between, limits=PATIENT)
            connection.send(b"release the key")
            assert connection.receive() == b"done"
            connection.close()
        assert len(proxy.sent) > 300
        with socket.create_connection(address, timeout=10) as raw:
            raw.sendall(proxy.sent)
            with contextlib.suppress(ConnectionResetError):
                while raw.recv(1 << 16):
                    pass
    assert served == [b"release the key"]


def test_a_frame_over_the_limit_ends_the_connection() -> None:
    """A frame that announces more than the limit is refused on its announcement."""
    ending = Ending()
    with running(_server(Limits(frame_bytes=100), ending)) as address:
        connection = connect(address, limits=PATIENT)
        connection.send(bytes(100))
        assert connection.receive() == bytes(100)
        connection.send(bytes(101))
        with pytest.raises(PeerClosedError):
            connection.receive()
        connection.close()
    assert ending.reasons == ["connection: a frame of 101 bytes is over the limit of 100"]


def test_a_payload_over_the_limit_is_refused_before_it_is_read() -> None:
    """A payload is held against the limit before memory is taken for it."""

    def serve(connection: Connection, _identity: Identity) -> None:
        connection.receive()
        with pytest.raises(ChannelError, match="over the limit of 10"):
            connection.receive_payload([memoryview(bytearray(6)), memoryview(bytearray(5))])
        connection.send(b"refused")

    with running(_server(Limits(payload_bytes=10), serve)) as address:
        connection = connect(address, limits=PATIENT)
        connection.send(b"head")
        assert connection.receive() == b"refused"
        connection.close()


def test_too_many_requests_end_the_connection() -> None:
    """After its burst, a connection that sends faster than its rate is ended."""
    ending = Ending()
    with running(_server(Limits(requests_per_s=1e-6, burst=3), ending)) as address:
        connection = connect(address, limits=PATIENT)
        for _ in range(3):
            connection.send(b"x")
            assert connection.receive() == b"x"
        connection.send(b"x")
        with pytest.raises(PeerClosedError):
            connection.receive()
        connection.close()
    assert ending.reasons == ["connection: over 1e-06 requests a second, the limit; send fewer"]


def test_a_silent_connection_ends() -> None:
    """A peer that sends nothing for the idle time is cut off."""
    ending = Ending()
    with running(_server(Limits(idle_s=0.1), ending)) as address:
        connection = connect(address, limits=PATIENT)
        with pytest.raises(PeerClosedError):
            connection.receive()
        connection.close()
    assert ending.reasons == ["connection: silent for 0.1 s, its limit; connect again"]


def test_a_drip_of_bytes_is_silence() -> None:
    """A peer that keeps a frame unfinished, byte by byte, is cut off as one that is silent."""
    ending = Ending()
    with running(_server(Limits(idle_s=0.3), ending)) as address:
        connection = connect(address, limits=PATIENT)
        connection._socket.sendall(b"\x00\x00\xff\xff")
        with contextlib.suppress(OSError):
            for _ in range(200):
                connection._socket.sendall(b"x")
                if ending.ended.wait(0.02):
                    break
        assert ending.ended.is_set()
        connection.close()
    assert ending.reasons == ["connection: silent for 0.3 s, its limit; connect again"]


def test_an_old_connection_ends() -> None:
    """A connection that is in use all the time ends at its lifetime."""
    ending = Ending()
    with running(_server(Limits(lifetime_s=0.3, requests_per_s=inf), ending)) as address:
        connection = connect(address, limits=PATIENT)
        with contextlib.suppress(PeerClosedError):
            for _ in range(200):
                connection.send(b"x")
                connection.receive()
                if ending.ended.wait(0.02):
                    break
        assert ending.ended.wait(1)
        connection.close()
    assert ending.reasons == ["connection: it is older than 0.3 s, its limit; connect again"]


def test_a_peer_that_does_not_read_is_cut_off() -> None:
    """A server whose peer takes nothing gives up after the idle time."""
    reasons: list[str] = []
    given_up = threading.Event()

    def serve(connection: Connection, _identity: Identity) -> None:
        with pytest.raises(ChannelError) as caught:
            connection.send(bytes(64 << 20))
        reasons.append(str(caught.value))
        given_up.set()

    with running(_server(Limits(idle_s=0.2), serve)) as address:
        connection = connect(address, limits=PATIENT)
        assert given_up.wait(30)
        connection.close()
    assert reasons == ["connection: silent for 0.2 s, its limit; connect again"]


def test_sessions_are_counted() -> None:
    """One session more than the limit is turned away; when one ends, its place is free again."""
    ending = Ending()
    with running(_server(Limits(sessions=1, connections_per_s=inf), ending)) as address:
        first = connect(address, limits=PATIENT)
        first.send(b"x")
        assert first.receive() == b"x"
        with pytest.raises(ChannelError, match="handshake failed"):
            connect(address, limits=PATIENT)
        first.close()
        assert ending.ended.wait(10)
        second = _retry(address)
        second.send(b"y")
        assert second.receive() == b"y"
        second.close()


def _retry(address: Address) -> Connection:
    """Connect as soon as the place is free: it is so a moment after the session's end."""
    for _ in range(100):
        try:
            return connect(address, limits=PATIENT)
        except ChannelError:
            threading.Event().wait(0.05)
    raise AssertionError("the place was never free again")


def test_new_connections_have_a_rate() -> None:
    """Connections that come faster than the rate are turned away, though places are free."""
    with running(_server(Limits(sessions=2, connections_per_s=1e-6))) as address:
        for _ in range(2):
            connect(address, limits=PATIENT).close()
        with pytest.raises(ChannelError, match="handshake failed"):
            connect(address, limits=PATIENT)


def test_a_handshake_that_does_not_come_frees_its_place() -> None:
    """A peer that connects and says nothing loses its place after the handshake's time."""
    with running(_server(Limits(sessions=1, connections_per_s=inf, handshake_s=0.1))) as address:
        with socket.create_connection(address) as silent:
            silent.settimeout(10)
            assert silent.recv(1) == b""
        connection = _retry(address)
        connection.send(b"x")
        assert connection.receive() == b"x"
        connection.close()


def test_a_server_survives_a_want_of_file_handles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that cannot be taken in for the moment does not end the server."""
    faults = iter([OSError(24, "Too many open files")])
    accept = socket.socket.accept

    def scarce(listener: socket.socket) -> tuple[socket.socket, object]:
        for fault in faults:
            raise fault
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", scarce)
    with running(_server()) as address:
        connection = connect(address, limits=PATIENT)
        connection.send(b"x")
        assert connection.receive() == b"x"
        connection.close()
    assert next(faults, None) is None


def test_closing_a_server_ends_its_connections() -> None:
    """A connection that waits for a frame is ended when the server closes."""
    ending = Ending()
    server = _server(serve=ending)
    with running(server) as address:
        connection = connect(address, limits=PATIENT)
        connection.send(b"x")
        assert connection.receive() == b"x"
    assert ending.ended.wait(10)
    with pytest.raises(PeerClosedError):
        connection.receive()
    connection.close()
    connection.close()


def test_an_address_in_use_is_refused() -> None:
    """Two servers cannot have one address."""
    with running(_server()) as address, pytest.raises(ChannelError, match=f"{address}: cannot be listened on"):
        Server(address, limits=PATIENT, identity=Identity.fresh, serve=_echo)


@pytest.mark.parametrize("has_memory_files", [True, False])
def test_a_key_leaves_no_file_behind(
    has_memory_files: bool,  # noqa: FBT001 - a case
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A context gets its key through a file in memory, or where there is none, through one that is gone at once."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def refuse(*_arguments: object) -> int:
        raise OSError(38, "Function not implemented")

    if not has_memory_files:
        monkeypatch.setattr(os, "memfd_create", refuse)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    IDENTITY.load_into(context)
    assert list(tmp_path.iterdir()) == []
    assert not any("identity" in target for target in _open_files())


def _open_files() -> list[str]:
    """Return what this process has open."""
    found = []
    for file in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # another thread's, closed meanwhile
            found.append(str(file.readlink()))
    return found


def test_a_key_survives_its_pem() -> None:
    """A key that was written down is the same key when it is read."""
    assert Identity.from_pem(IDENTITY.key_pem(), origin="here").spki == IDENTITY.spki


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN PRIVATE KEY-----\n"])
def test_what_is_no_key_is_refused(pem: bytes) -> None:
    """Bytes that are no P-256 key are refused, and where they came from is named."""
    with pytest.raises(TrustError, match=r"identity\.pem: expected a P-256 private key"):
        Identity.from_pem(pem, origin="identity.pem")


@given(
    host=st.one_of(
        st.ip_addresses(v=4).map(str),
        st.ip_addresses(v=6).map(str),
        st.from_regex(r"[a-z][a-z0-9.-]{0,30}", fullmatch=True),
    ),
    port=st.integers(0, 65535),
)
def test_addresses_are_read_as_they_are_written(host: str, port: int) -> None:
    """Every address is read back from its text."""
    address = Address(host, port)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "host:65536", "::1:1", "[::1]", "ho st:1", "host:1\n"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ChannelError, match="expected HOST:PORT"):
        parse_address(text)


@given(st.lists(st.floats(0, 5), max_size=60), st.floats(0.1, 10), st.integers(1, 5))
def test_a_bucket_never_gives_more_than_its_rate(waits: list[float], per_s: float, burst: int) -> None:
    """In any stretch of time, a bucket gives at most its burst and its rate times that time."""
    now = 0.0
    bucket = TokenBucket(per_s, burst, clock=lambda: now)
    taken: list[float] = []
    for wait in waits:
        now += wait
        if bucket.take():
            taken.append(now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + per_s * (taken[last] - taken[first]) + 1e-6
    if len(waits) >= burst:
        assert len(taken) >= min(burst, len(waits))
