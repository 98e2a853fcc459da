"""Evidence in both directions: bound to the asker's nonce and to the TLS key of the side that shows it.

A TLS key vouches for an enclave only where it was made in it and never leaves it: `sinian train keys` is run inside.
"""

from __future__ import annotations

from datetime import UTC, datetime

from siniantrust.collab._config import AttestationSection
from siniantrust.collab._errors import RefusedError
from siniantrust.errors import AttestationError
from siniantrust.trust.attestation import (
    Reference,
    bind,
    evidence_from_json,
    evidence_to_json,
    load_reference,
    verifier,
)
from siniantrust.trust.attestation.attesters import open_attester

_DOMAIN = b"siniantrust collab 1\0"


class Attestation:
    """What one side shows and asks.

    Args:
        section: its configuration.
        spki: its own public key.

    Raises:
        AttestationError: if the attester or the reference file cannot be used.
    """

    def __init__(self, section: AttestationSection, spki: bytes) -> None:
        self._attester = None if section.attester is None else open_attester(section.attester)
        self._reference: Reference | None = None if section.reference is None else load_reference(section.reference)
        self._spki = spki

    def show(self, nonce: bytes, *, role: str) -> bytes:
        """Return evidence of this side for a peer's nonce; empty where it has no attester.

        Raises:
            AttestationError: if the nonce is none, or the platform gives no evidence.
        """
        if self._attester is None:
            return b""
        return evidence_to_json(self._attester.evidence(bind(nonce, _bound(role, self._spki))))

    def appraise(self, raw: bytes, *, name: str, nonce: bytes, role: str, spki: bytes) -> str:
        """Appraise a peer's evidence where it is asked for, and return its provenance; empty where it is not.

        Raises:
            RefusedError: if there is none, or it does not suffice.
        """
        if self._reference is None:
            return ""
        if not raw:
            raise RefusedError(f"{name} is not attested: evidence is required, and it showed none")
        wanted = self._reference.values.kind
        try:
            evidence = evidence_from_json(raw)
            if evidence.kind != wanted:
                raise RefusedError(f"{name} is not attested: expected evidence of kind {wanted}, found {evidence.kind}")
            binding = bind(nonce, _bound(role, spki))
            result = verifier(evidence.kind).appraise(
                evidence, binding=binding, reference=self._reference.values, now=datetime.now(UTC)
            )
        except AttestationError as fault:
            raise RefusedError(f"{name} is not attested: {fault}") from None
        if (refusal := self._reference.refusal(result)) is not None:
            raise RefusedError(f"{name} is not attested: {refusal}")
        return str(result.provenance)


def _bound(role: str, spki: bytes) -> bytes:
    """Return what evidence vouches for; with the role in it, an edge's evidence is no cloud's."""
    return _DOMAIN + role.encode() + b"\0" + spki
