"""Enclaves that ask a broker for keys, with and without a network."""

from __future__ import annotations

import dataclasses

import pytest
from remote_cases import MEASUREMENT

from siniantrust.trust.attestation.attesters.simulated import SimulatedAttester
from siniantrust.trust.broker import BrokerClient, KeyBroker, RefusedError
from siniantrust.trust.broker._jwe import decrypt_key
from siniantrust.trust.broker._request import (
    KeyRequest,
    new_request,
    request_binding,
)
from siniantrust.trust.broker._server import LIMITS
from siniantrust.trust.tls import Address, Identity, fingerprint

ATTESTER = SimulatedAttester(MEASUREMENT)
STRANGER = SimulatedAttester("cd" * 32)
FREE = dataclasses.replace(LIMITS, connections_per_s=1e9, requests_per_s=1e9)
NONCE = bytes(range(32))


def client_of(address: Address, broker: KeyBroker, *, attester: SimulatedAttester = ATTESTER) -> BrokerClient:
    """Return an enclave's side of the broker, which pins its key."""
    return BrokerClient(attester, address, pin=fingerprint(broker.store.identity.spki))


def events_of(broker: KeyBroker) -> list[tuple[str, str]]:
    """Return what a broker's log says that happened, and to which key."""
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


def refusal(broker: KeyBroker, asker: Asker, key_id: str) -> str:
    """Return why a request was refused, as the log says it."""
    with pytest.raises(RefusedError, match="its log says why"):
        asker.ask(broker, key_id)
    return next(entry for entry in reversed(broker.store.log.entries) if entry.event == "refuse").detail
