"""What is measured of a deployment, on the Attester's side and, from its own files, on the Relying Party's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from siniantrust.trust._types import EnclaveSpec
from siniantrust.trust.attestation.tpm2._event_log import Event
from siniantrust.trust.attestation.tpm2._verifier import EVENT_CLAIM
from siniantrust.trust.process import _measure


def deployment_events(spec: EnclaveSpec, manifest: bytes) -> tuple[Event, Event]:
    """Return the measurements of the process enclave's code and configuration, and of a bundle.

    The Attester passes them to ``Tpm2Attester.measure`` before it launches the enclave; the Relying Party computes them
    from its own installation and its own copy of the bundle.

    Args:
        spec: the enclave's configuration; the files and the versions of its libraries are those installed here.
        manifest: the bytes of the bundle's ``manifest.json``, which covers every other file of it.
    """
    return (
        Event("enclave", bytes.fromhex(_measure.reference_values(spec).measurement)),
        Event("bundle", hashlib.sha256(manifest).digest()),
    )


def accepted_events(events: Iterable[Event]) -> dict[str, frozenset[str]]:
    """Return reference values (``ReferenceValues.accepted``) that admit these measurements and no others."""
    accepted: dict[str, frozenset[str]] = {}
    for event in events:
        name = f"{EVENT_CLAIM}{event.name}"
        accepted[name] = accepted.get(name, frozenset()) | {event.digest.hex()}
    return accepted
