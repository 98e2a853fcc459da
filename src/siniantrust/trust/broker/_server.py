"""The broker on the network: a nonce, a request, an answer."""

from __future__ import annotations

import json
import os

from siniantrust._extras import require
from siniantrust.errors import AttestationError, ChannelError, TrustError
from siniantrust.trust.attestation._roles import NONCE_BYTES
from siniantrust.trust.broker._broker import KeyBroker, RefusedError
from siniantrust.trust.broker._request import MAX_REQUEST_BYTES, GivingUp, parse_giving_up, parse_request
from siniantrust.trust.tls import Address, Connection, Identity, Limits, Server

_GIVES_UP = b'{"gives_up": '
LIMITS = Limits(
    frame_bytes=MAX_REQUEST_BYTES,
    payload_bytes=0,
    idle_s=30.0,
    lifetime_s=120.0,
    requests_per_s=2.0,
    burst=16,
    sessions=16,
    connections_per_s=5.0,
)


class BrokerServer:
    """Serves a broker over TLS with the store's lasting key, which clients know beforehand.

    For each request the server first sends a nonce of its own; a request that arrives is for that nonce, and it is used
    up whatever the answer is.

    Args:
        broker: decides.
        address: where to listen; port 0 takes a free one.
        limits: what a client may do.

    Raises:
        ChannelError: if the address cannot be listened on.
        MissingExtraError: if joserfc is not installed.
    """

    def __init__(self, broker: KeyBroker, address: Address, *, limits: Limits = LIMITS) -> None:
        require("joserfc.jwe", extra="attest")  # missed now rather than at the first request
        self._broker = broker
        self._fault: TrustError | None = None
        self._server = Server(address, limits=limits, identity=lambda: broker.store.identity, serve=self._serve)
        with broker.store.log.exclusive():
            broker.store.log.append("start", detail=f"listens on {self._server.address}")

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._server.address

    def run(self) -> None:
        """Serve until ``close``.

        Raises:
            TrustError: if the store or its log was tampered with; nothing is released then, and the server has stopped.
        """
        self._server.run()
        if self._fault is not None:
            raise self._fault

    def close(self) -> None:
        """Stop, and cut every connection."""
        self._server.close()

    def _serve(self, connection: Connection, _identity: Identity) -> None:
        while True:
            nonce = os.urandom(NONCE_BYTES)
            connection.send(json.dumps({"nonce": nonce.hex()}).encode())
            connection.send(self._answer(bytes(connection.receive()), nonce))
            if self._fault is not None:
                self.close()

    def _answer(self, raw: bytes, nonce: bytes) -> bytes:
        try:
            try:
                request = parse_giving_up(raw) if raw.startswith(_GIVES_UP) else parse_request(raw)
            except (ChannelError, AttestationError) as fault:
                raise self._broker.refuse(str(fault)) from None
            if isinstance(request, GivingUp):
                self._broker.give_up(request, nonce=nonce)
                return json.dumps({"revoked": request.enclave}).encode()
            return json.dumps({"key": self._broker.release(request, nonce=nonce)}).encode()
        except RefusedError as refusal:
            return json.dumps({"refused": str(refusal)}).encode()
        except TrustError as fault:
            self._fault = fault
            return json.dumps({"refused": "the key broker cannot decide and has stopped"}).encode()
