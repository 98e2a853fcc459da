"""Evidence and its appraisal, in the roles of RFC 9334.

The enclave is the *Attester*; ``appraise`` is the *Verifier*, which compares *Evidence* with *Reference Values*;
whoever launched the enclave is the *Relying Party* and releases keys only after an *Attestation Result*. Freshness is
shown with a nonce (section 10.2 of the RFC).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from siniantrust.errors import AttestationError
from siniantrust.trust._labels import Provenance

NONCE_BYTES = 32
PUBLIC_KEY_BYTES = 32
_MAX_JSON_BYTES = 32 << 10
SIMULATED_STATEMENT = (
    "simulated: no hardware stands behind this evidence; it shows that the pieces fit, "
    "and proves nothing against the host"
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an enclave claims of itself.

    Evidence whose ``provenance`` is ``simulated`` carries no signature, because there is no hardware key that could
    make one: a host that wants to lie can write all of it. It **proves nothing against the host**; ``statement`` says
    so wherever evidence is shown.

    Attributes:
        provider: the provider that made it.
        provenance: where the claims come from.
        nonce: the Verifier's challenge, 32 bytes.
        enclave_public_key: the enclave's X25519 key of this session, 32 bytes; of an enclave service, the SHA-256 of
            its certificate's key.
        report_data: SHA-256 over nonce, enclave's and client's public key, or what ``attestation.bind`` returns; binds
            the evidence to the session.
        measurement: SHA-256 in hexadecimal over the enclave's program and configuration.
        protections: the protections' names, with ``active`` or ``missing: reason``.
        statement: what this evidence is worth, in words.
    """

    provider: str
    provenance: Provenance
    nonce: bytes
    enclave_public_key: bytes
    report_data: bytes
    measurement: str
    protections: Mapping[str, str] = field(default_factory=dict)
    statement: str = SIMULATED_STATEMENT

    def to_json(self) -> bytes:
        """Return the evidence as JSON."""
        return json.dumps(
            {
                "provider": self.provider,
                "provenance": self.provenance.value,
                "nonce": self.nonce.hex(),
                "enclave_public_key": self.enclave_public_key.hex(),
                "report_data": self.report_data.hex(),
                "measurement": self.measurement,
                "protections": dict(self.protections),
                "statement": self.statement,
            },
            sort_keys=True,
        ).encode()


_TEXT_FIELDS = ("provider", "provenance", "nonce", "enclave_public_key", "report_data", "measurement", "statement")


def parse_evidence(raw: bytes) -> Evidence:
    """Read evidence that came from an enclave, believing nothing of it.

    Raises:
        AttestationError: if it is not exactly the JSON that ``Evidence.to_json`` writes.
    """
    try:
        if len(raw) > _MAX_JSON_BYTES:
            raise ValueError(f"{len(raw)} bytes")  # noqa: TRY301 - every fault takes the same exit below
        fields = json.loads(raw)
        protections = fields.pop("protections")
        if set(fields) != set(_TEXT_FIELDS) or not all(isinstance(value, str) for value in fields.values()):
            raise ValueError("its fields")  # noqa: TRY301 - every fault takes the same exit below
        if not all(isinstance(item, str) for pair in protections.items() for item in pair):
            raise ValueError("its protections")  # noqa: TRY301 - every fault takes the same exit below
        "".join((*fields.values(), *protections, *protections.values())).encode()  # JSON may have half a character
        return Evidence(
            provider=fields["provider"],
            provenance=Provenance(fields["provenance"]),
            nonce=bytes.fromhex(fields["nonce"]),
            enclave_public_key=bytes.fromhex(fields["enclave_public_key"]),
            report_data=bytes.fromhex(fields["report_data"]),
            measurement=fields["measurement"],
            protections=protections,
            statement=fields["statement"],
        )
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as fault:
        raise AttestationError(f"enclave evidence: expected its JSON form, found a fault in it ({fault})") from None


@dataclass(frozen=True, slots=True)
class ReferenceValues:
    """What a Verifier expects: computed on its own side, never taken from the evidence."""

    provider: str
    measurement: str


@dataclass(frozen=True, slots=True)
class AttestationResult:
    """The Verifier's conclusion, for the Relying Party. Simulated evidence can be consistent, never secure."""

    provenance: Provenance
    measurement: str
    protections: Mapping[str, str]
    statement: str


def report_data(nonce: bytes, enclave_public_key: bytes, client_public_key: bytes) -> bytes:
    """Return SHA-256(nonce, enclave's public key, client's public key); each of them has a fixed length."""
    parts = (nonce, enclave_public_key, client_public_key)
    lengths = (NONCE_BYTES, PUBLIC_KEY_BYTES, PUBLIC_KEY_BYTES)
    for part, length in zip(parts, lengths, strict=True):
        if len(part) != length:
            raise AttestationError(f"enclave evidence: expected a nonce or key of {length} bytes, found {len(part)}")
    return hashlib.sha256(b"".join(parts)).digest()


def check_provenance(provider: str, provenance: Provenance, accept: tuple[Provenance, ...]) -> None:
    """Refuse claims from a source that the policy does not accept.

    Raises:
        AttestationError: saying which source it is and the policy line that would accept it.
    """
    if provenance not in accept:
        accepted = ", ".join(accept) or "nothing"
        listed = ", ".join(f'"{entry}"' for entry in dict.fromkeys((*accept, provenance)))
        raise AttestationError(
            f"enclave '{provider}' is {provenance}, the policy accepts: {accepted}; "
            f'to accept it, write: [enclave] accept = ["{provenance}"] (or all of [{listed}])'
        )


def appraise(
    evidence: Evidence,
    *,
    nonce: bytes,
    client_public_key: bytes,
    reference: ReferenceValues,
    accept: tuple[Provenance, ...],
) -> AttestationResult:
    """Appraise evidence as the Verifier; every check that fails is an error, none is a warning.

    Raises:
        AttestationError: if the source is not accepted, or nonce, key binding or measurement differ.
    """
    check_provenance(evidence.provider, evidence.provenance, accept)
    if evidence.provider != reference.provider:
        raise AttestationError(f"enclave evidence: expected provider {reference.provider}, found {evidence.provider}")
    if not hmac.compare_digest(evidence.nonce, nonce):
        raise AttestationError("enclave evidence: expected our nonce, found another; it may be a replay, launch again")
    bound = report_data(nonce, evidence.enclave_public_key, client_public_key)
    if not hmac.compare_digest(evidence.report_data, bound):
        raise AttestationError("enclave evidence: it is not bound to this session's keys; somebody may stand between")
    if not hmac.compare_digest(evidence.measurement.encode(), reference.measurement.encode()):
        raise AttestationError(
            f"enclave evidence: expected measurement {reference.measurement[:16]}…, found "
            f"{evidence.measurement[:16]}…; the enclave runs other code or another configuration, "
            "reinstall siniantrust and launch again"
        )
    return AttestationResult(evidence.provenance, evidence.measurement, evidence.protections, evidence.statement)
