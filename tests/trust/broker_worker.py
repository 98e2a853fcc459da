"""A process that releases one version after the other, until it is killed."""

from __future__ import annotations

import itertools
from multiprocessing.connection import Connection
from pathlib import Path

from remote_cases import MEASUREMENT, key_entry

from siniantrust.trust.attestation.attesters.simulated import SimulatedAttester
from siniantrust.trust.broker import KeyBroker, Store
from siniantrust.trust.broker._request import new_request, request_binding
from siniantrust.trust.tls import Identity

NONCE = bytes(32)


def release_for_ever(path: Path, acknowledged: Connection) -> None:
    """Open the store, and say each version whose key was handed out."""
    broker = KeyBroker(Store(path))
    attester, enclave = SimulatedAttester(MEASUREMENT), Identity.fresh()
    for version in itertools.count(broker.state().counter("net") + 1):
        key_id = f"net-{version}"
        if broker.store.get(key_id) is None:
            broker.add(key_entry(key_id, version=version))
        binding = request_binding(
            NONCE, broker.store.identity.spki, key_id=key_id, enclave_key=enclave.spki, recipient_key=enclave.spki
        )
        request = new_request(enclave, enclave, attester.evidence(binding), key_id=key_id, binding=binding)
        broker.release(request, nonce=NONCE)
        acknowledged.send(version)
