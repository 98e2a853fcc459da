"""The service's side: each connection is a session of its own, with a key, evidence and parts that end with it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from siniantrust.errors import ChannelError, TrustError
from siniantrust.trust._channel import PeerClosedError
from siniantrust.trust._cipher import KEY_BYTES
from siniantrust.trust._codec import Operation
from siniantrust.trust._sealing import sealing_of
from siniantrust.trust._secret import SecretMemory
from siniantrust.trust.attestation import Attester, bind
from siniantrust.trust.attestation._bundle_file import evidence_to_json
from siniantrust.trust.process._serve import Server as PartServer
from siniantrust.trust.service._channel import TlsChannel
from siniantrust.trust.service._limits import limits_to_json
from siniantrust.trust.tls import Address, Connection, Identity, Limits, Server


class KeySource(Protocol):
    """Where one session gets keys from."""

    def fetch(self, key_id: str) -> bytes:
        """Return a key. Raises TrustError if it is refused."""

    def give_up(self, why: str) -> None:
        """Say that the session failed a check: it is to get no key any more. Raises TrustError if nobody listens."""


class EnclaveService:
    """Runs parts for whoever connects; it is to run inside a TEE, which ``attester`` makes evidence of.

    A client proves nothing to the service: it sends its own parts and keys, and sees nothing of other sessions.

    Args:
        attester: makes evidence.
        address: where to listen; port 0 takes a free one.
        limits: what a client may do.
        threads: threads that a part computes with.
        keys: makes the client of the key broker that one session asks under a name of its own; None for no broker.

    Raises:
        ChannelError: if the address cannot be listened on.
    """

    def __init__(
        self,
        attester: Attester,
        address: Address,
        *,
        limits: Limits | None = None,
        threads: int = 1,
        keys: Callable[[], KeySource] | None = None,
    ) -> None:
        self._attester = attester
        self._threads = threads
        self._keys = keys
        granted = limits or Limits()
        self._limits = limits_to_json(granted, attester)
        self._server = Server(address, limits=granted, identity=Identity.fresh, serve=self._serve)

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._server.address

    def run(self) -> None:
        """Serve until ``close``."""
        self._server.run()

    def close(self) -> None:
        """Stop, and end every session."""
        self._server.close()

    def _serve(self, connection: Connection, identity: Identity) -> None:
        channel = TlsChannel(connection)

        def prove(nonce: bytes) -> bytes:
            return evidence_to_json(self._attester.evidence(bind(nonce, identity.spki)))

        keys = None if self._keys is None else self._keys()
        with SecretMemory() as secret:
            parts = PartServer(
                channel,
                key=secret.allocate(KEY_BYTES),
                threads=self._threads,
                prove=prove,
                sealing=lambda: sealing_of(self._attester),
                limits=self._limits,
                fetch_key=None if keys is None else keys.fetch,
            )
            try:
                parts.serve()
            except ChannelError as fault:
                if keys is not None:
                    with suppress(TrustError):  # the session ends either way
                        keys.give_up(str(fault))
                with suppress(ChannelError, PeerClosedError):
                    channel.send(channel.prepare(Operation.ENDED, str(fault)))
