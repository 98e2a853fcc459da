"""The roles of RFC 9334 as protocols, and what passes between them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, runtime_checkable

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation._result import AttestationResult

NONCE_BYTES = 32
BINDING_BYTES = 64
_DOMAIN = b"siniantrust attestation binding 1\0"


def bind(nonce: bytes, runtime_data: bytes) -> bytes:
    """Return the 64 bytes that evidence must carry: SHA-512 over the nonce and what the Attester vouches for.

    Args:
        nonce: the Verifier's challenge, 32 bytes, used once.
        runtime_data: usually the public key that the Attester made for this session (DER, SubjectPublicKeyInfo).

    Raises:
        AttestationError: if the nonce has another length.
    """
    if len(nonce) != NONCE_BYTES:
        raise AttestationError(f"attestation: expected a nonce of {NONCE_BYTES} bytes, found {len(nonce)}")
    return hashlib.sha512(_DOMAIN + nonce + runtime_data).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceBundle:
    """Evidence as it travels: nothing in it is believed before a Verifier has appraised it.

    Attributes:
        kind: which Verifier can read it: ``sgx``, ``tdx``, ``sev-snp``, ``tpm2``, ``nvidia-gpu``, ``simulated``.
        body: the evidence itself, in its own format.
        endorsements: what comes along to check it with (certificates, collateral, logs), by name.
    """

    kind: str
    body: bytes = field(repr=False)
    endorsements: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceValues:
    """What a Verifier compares claims with; it comes from the Relying Party, never from the evidence.

    Attributes:
        kind: the kind of evidence that these are for.
        accepted: for each claim, the values that are accepted (text; digests in lower-case hexadecimal).
        at_least: for each claim that counts (security versions), the lowest value that is accepted.
        anchors: DER certificates or public keys that chains may end in, by name, where the kind has no built-in root.
    """

    kind: str
    accepted: Mapping[str, frozenset[str]] = field(default_factory=dict)
    at_least: Mapping[str, int] = field(default_factory=dict)
    anchors: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@runtime_checkable
class Attester(Protocol):
    """What makes evidence about the place that it runs in."""

    @property
    def kind(self) -> str:
        """The kind of evidence that it makes."""

    def evidence(self, binding: bytes) -> EvidenceBundle:
        """Return fresh evidence that carries ``binding`` (64 bytes, see ``bind``).

        Raises:
            AttestationError: if the platform gives none.
        """


@runtime_checkable
class Verifier(Protocol):
    """What appraises one kind of evidence. A check that cannot be made is an error or is not affirmed, never passed."""

    @property
    def kind(self) -> str:
        """The kind of evidence that it reads."""

    def appraise(
        self, evidence: EvidenceBundle, *, binding: bytes, reference: ReferenceValues, now: datetime
    ) -> AttestationResult:
        """Appraise evidence.

        Args:
            evidence: what the Attester sent.
            binding: the 64 bytes that it must carry.
            reference: what its claims are compared with; what has no reference value is not affirmed.
            now: the time (aware) at which certificates and collateral must be valid.

        Raises:
            AttestationError: if it is malformed, not authentic, not bound to ``binding``, expired, or contradicts a
                reference value.
        """
