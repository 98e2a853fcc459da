"""What the tests of connections, the enclave service and the key broker share."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from siniantrust.trust import EnclaveSpec, Provenance
from siniantrust.trust.attestation import ReferenceValues
from siniantrust.trust.broker import KeyEntry
from siniantrust.trust.tls import Address, Identity

LOOPBACK = Address("127.0.0.1", 0)
MEASUREMENT = "ab" * 32
REFERENCE = ReferenceValues(
    kind="simulated", accepted={"provider": frozenset({"service"}), "measurement": frozenset({MEASUREMENT})}
)


class Running(Protocol):
    """A server that can be run."""

    @property
    def address(self) -> Address:
        """Where it listens."""

    def run(self) -> None:
        """Serve until ``close``."""

    def close(self) -> None:
        """Stop."""


@contextmanager
def running(server: Running) -> Iterator[Address]:
    """Run a server in a thread; yield its address."""
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server.address
    finally:
        server.close()
        thread.join(10)
        assert not thread.is_alive()


def spec_for(
    address: Address, *, provider: str = "service", accept: tuple[Provenance, ...] = (Provenance.SIMULATED,)
) -> EnclaveSpec:
    """Return a spec that accepts the simulated enclave service at ``address``."""
    return EnclaveSpec(
        provider=provider, memory_bytes=256 << 20, accept=accept, address=str(address), reference=REFERENCE
    )


def key_entry(
    key_id: str = "k1",
    *,
    lineage: str = "net",
    version: int = 1,
    key: bytes = b"k" * 32,
    reference: ReferenceValues = REFERENCE,
    accept: tuple[Provenance, ...] = (Provenance.SIMULATED,),
) -> KeyEntry:
    """Return a key for enclaves that state ``MEASUREMENT``."""
    return KeyEntry(key_id=key_id, lineage=lineage, version=version, key=key, reference=reference, accept=accept)


def sigstruct(*, attributes: int = 0x04) -> bytes:
    """Return what ``gramine-sgx-sign`` writes, without a signature in it."""
    raw = bytearray(1808)
    raw[:16] = bytes.fromhex("06000000e10000000000010000000000")
    raw[24:40] = bytes.fromhex("01010000600000006000000001000000")
    raw[128:512] = b"m" * 384
    raw[928] = attributes
    raw[960:992] = b"e" * 32
    raw[1024:1028] = (7).to_bytes(2, "little") + (3).to_bytes(2, "little")
    return bytes(raw)


class Proxy:
    """Stands between a client and a server on loopback.

    Args:
        target: the server.
        identity: if given, the proxy ends TLS on both sides with this key, as a man in the middle has to; if not, it
            passes bytes on as they are, and keeps those that the client sent.

    With ``spoils``, it changes a bit of what the client sends.
    """

    def __init__(self, target: Address, *, identity: Identity | None = None) -> None:
        self._target = target
        self._identity = identity
        self._listener = socket.create_server(LOOPBACK)
        self.address = Address(*self._listener.getsockname()[:2])
        self.sent = bytearray()
        self.spoils = False

    def run(self) -> None:
        """Pass on one connection after the other."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with suppress(OSError), socket.create_connection(self._target) as server:
                self._pass_on(client, server)
            client.close()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        if self._identity is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._identity.load_into(context)
            outward = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            outward.check_hostname = False
            outward.verify_mode = ssl.CERT_NONE
            client, server = context.wrap_socket(client, server_side=True), outward.wrap_socket(server)
        back = threading.Thread(target=_copy, args=(server, client, bytes), daemon=True)
        back.start()
        _copy(client, server, self._keep)
        back.join(10)
        client.close()
        server.close()

    def _keep(self, data: bytes) -> bytes:
        self.sent += data
        return data[:-1] + bytes([data[-1] ^ 1]) if self.spoils else data

    def close(self) -> None:
        """Stop."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _copy(source: socket.socket, target: socket.socket, through: Callable[[bytes], bytes]) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(through(data))
    for end in (source, target):
        with suppress(OSError):
            socket.socket.shutdown(end, socket.SHUT_RDWR)
