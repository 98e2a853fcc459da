"""The enclave's side of the key broker: evidence for its nonce, and a key that only this enclave can open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

from siniantrust._extras import require
from siniantrust.errors import ChannelError, EnclaveLostError, TrustError
from siniantrust.trust._channel import PeerClosedError
from siniantrust.trust.attestation import Attester
from siniantrust.trust.broker._jwe import decrypt_key
from siniantrust.trust.broker._request import (
    MAX_REQUEST_BYTES,
    GivingUp,
    new_request,
    parse_object,
    request_binding,
)
from siniantrust.trust.tls import Address, Connection, Identity, Limits, connect

_LIMITS = Limits(frame_bytes=MAX_REQUEST_BYTES, payload_bytes=0, idle_s=30.0, lifetime_s=120.0, requests_per_s=inf)
_NONCE_HEX = 64
_MAX_WHY = 500


class BrokerClient:
    """Asks a broker for keys, as the enclave that ``attester`` makes evidence of.

    Args:
        attester: makes evidence.
        address: where the broker listens.
        pin: SHA-256 of the broker's public key, which `sinian keys serve` prints.

    Raises:
        MissingExtraError: if joserfc is not installed.
    """

    def __init__(self, attester: Attester, address: Address, *, pin: str) -> None:
        require("joserfc.jwe", extra="attest")  # missed now rather than at the first key
        self._attester = attester
        self._address = address
        self._pin = pin
        self._identity = Identity.fresh()
        self._has_keys = False

    def fetch(self, key_id: str) -> bytes:
        """Return a key.

        Raises:
            AttestationError: if the broker's key is not the pinned one, or no evidence can be made.
            TrustError: if the broker refuses.
            EnclaveLostError: if it is gone.
        """
        with self._connected() as (connection, nonce):
            key = self._exchange(connection, nonce, key_id)
        self._has_keys = True
        return key

    def give_up(self, why: str) -> None:
        """Tell the broker that this enclave failed a check, so that it gets no key any more; without keys, do nothing.

        Raises:
            AttestationError: if the broker's key is not the pinned one.
            TrustError: if the broker refuses.
            EnclaveLostError: if it is gone.
        """
        if not self._has_keys:
            return
        with self._connected() as (connection, nonce):
            notice = GivingUp.by(
                self._identity, " ".join(why.split())[:_MAX_WHY], nonce=nonce, broker_key=connection.peer_spki
            )
            connection.send(notice.to_json())
            parse_object(connection.receive(), {"revoked"})

    @contextmanager
    def _connected(self) -> Iterator[tuple[Connection, bytes]]:
        """Connect, and take the broker's nonce."""
        connection = connect(self._address, limits=_LIMITS, pin=self._pin)
        try:
            yield connection, _nonce(connection.receive())
        except PeerClosedError:
            raise EnclaveLostError(f"key broker {self._address}: it closed the connection; try again later") from None
        finally:
            connection.close()

    def _exchange(self, connection: Connection, nonce: bytes, key_id: str) -> bytes:
        recipient = Identity.fresh()
        binding = request_binding(
            nonce,
            connection.peer_spki,
            key_id=key_id,
            enclave_key=self._identity.spki,
            recipient_key=recipient.spki,
        )
        evidence = self._attester.evidence(binding)
        connection.send(new_request(self._identity, recipient, evidence, key_id=key_id, binding=binding).to_json())
        answer = connection.receive()
        try:
            refused = parse_object(answer, {"refused"})["refused"]
        except ChannelError:
            return decrypt_key(parse_object(answer, {"key"})["key"], recipient.key, key_id=key_id)
        raise TrustError(f"key {key_id}: {' '.join(refused.split())[:300]}")


def _nonce(raw: bytearray) -> bytes:
    text = parse_object(raw, {"nonce"})["nonce"]
    try:
        nonce = bytes.fromhex(text) if len(text) == _NONCE_HEX else b""
    except ValueError:
        nonce = b""
    if not nonce:
        raise ChannelError("key broker: it sent no nonce of 32 bytes")
    return nonce
