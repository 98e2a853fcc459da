"""Attestation in the roles of RFC 9334: Attester, Verifier, Relying Party, and what passes between them."""

from siniantrust.trust.attestation._bundle_file import evidence_from_json, evidence_to_json, load_evidence
from siniantrust.trust.attestation._ear import sign_result, verify_result
from siniantrust.trust.attestation._reference_file import Reference, load_reference
from siniantrust.trust.attestation._reference_table import reference_from_table, reference_to_table
from siniantrust.trust.attestation._registry import list_verifiers, verifier
from siniantrust.trust.attestation._result import AttestationResult, Tier, TrustClaim
from siniantrust.trust.attestation._roles import (
    BINDING_BYTES,
    NONCE_BYTES,
    Attester,
    EvidenceBundle,
    ReferenceValues,
    Verifier,
    bind,
)

__all__ = [
    "BINDING_BYTES",
    "NONCE_BYTES",
    "AttestationResult",
    "Attester",
    "EvidenceBundle",
    "Reference",
    "ReferenceValues",
    "Tier",
    "TrustClaim",
    "Verifier",
    "bind",
    "evidence_from_json",
    "evidence_to_json",
    "list_verifiers",
    "load_evidence",
    "load_reference",
    "reference_from_table",
    "reference_to_table",
    "sign_result",
    "verifier",
    "verify_result",
]
