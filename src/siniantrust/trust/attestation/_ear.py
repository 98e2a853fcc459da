"""Attestation results for others: EAR (draft-ietf-rats-ear), an EAT (RFC 9711) as a signed JSON Web Token."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from siniantrust import __version__
from siniantrust._extras import require
from siniantrust.errors import AttestationError
from siniantrust.trust._labels import Provenance
from siniantrust.trust.attestation._compare import check_binding
from siniantrust.trust.attestation._result import AttestationResult, Tier, TrustClaim
from siniantrust.trust.attestation._strict import from_base64url, one_line, read_object, to_base64url

PROFILE = "tag:github.com,2023:veraison/ear"
MAX_BYTES = 256 << 10
_TYPE = "eat+jwt"
_PARTS = 3
_CLOCK_SKEW_S = 60
_WHAT = "attestation result (EAR)"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Verifier(_Section):
    developer: str
    build: str


class _Submodule(_Section):
    """The appraisal of one kind of evidence; names that EAR does not have are ours."""

    status: Literal["none", "affirming", "warning", "contraindicated"] = Field(alias="ear.status")
    vector: dict[TrustClaim, Tier] = Field(alias="ear.trustworthiness-vector")
    required: tuple[TrustClaim, ...] = Field(alias="siniantrust.required")
    provenance: Provenance = Field(alias="siniantrust.provenance")
    claims: dict[str, str] = Field(alias="siniantrust.claims")
    unchecked: tuple[str, ...] = Field(alias="siniantrust.unchecked")
    appraised_at: int = Field(alias="siniantrust.appraised-at")


class _Ear(_Section):
    profile: Literal["tag:github.com,2023:veraison/ear"] = Field(alias="eat_profile")
    issuer: str = Field(alias="iss")
    issued_at: int = Field(alias="iat")
    expires_at: int = Field(alias="exp")
    nonce: str = Field(alias="eat_nonce")
    verifier: _Verifier = Field(alias="ear.verifier-id")
    submodules: dict[str, _Submodule] = Field(alias="submods", min_length=1, max_length=1)


def sign_result(result: AttestationResult, key: bytes, *, binding: bytes, now: datetime, lifetime_s: int = 300) -> str:
    """Return a result as a signed EAR, for ``verify_result``.

    Args:
        result: the result; its provenance travels with it.
        key: the Verifier's private key in PEM (PKCS 8), P-256 or Ed25519.
        binding: the 64 bytes that the evidence carried; they become the token's nonce, so that it says which question
            it answers.
        now: when it is issued.
        lifetime_s: how long it holds.

    Raises:
        AttestationError: if the key is of another kind.
    """
    jwk, algorithm = _import(key, private=True)
    issued_at = int(now.timestamp())
    ear = {
        "eat_profile": PROFILE,
        "iss": jwk.thumbprint_uri(),
        "iat": issued_at,
        "exp": issued_at + lifetime_s,
        "eat_nonce": to_base64url(binding),
        "ear.verifier-id": {"developer": "SinianTrust", "build": f"siniantrust {__version__}"},
        "submods": {
            result.kind: {
                "ear.status": result.tier.name.lower(),
                "ear.trustworthiness-vector": {claim.value: int(tier) for claim, tier in result.vector.items()},
                "siniantrust.required": sorted(claim.value for claim in result.required),
                "siniantrust.provenance": result.provenance.value,
                "siniantrust.claims": dict(result.claims),
                "siniantrust.unchecked": list(result.unchecked),
                "siniantrust.appraised-at": int(result.appraised_at.timestamp()),
            }
        },
    }
    jws = require("joserfc.jws", extra="attest")
    header = {"alg": algorithm, "typ": _TYPE}
    token: str = jws.serialize_compact(header, json.dumps(ear, separators=(",", ":")), jwk, [algorithm])
    return token


def verify_result(token: str, key: bytes, *, binding: bytes, now: datetime) -> AttestationResult:
    """Check a signed EAR and return the result in it.

    The issuer is the key: it names itself by the thumbprint of its key (RFC 9278), and no other key is tried. The
    algorithm is the key's own, whatever the token says.

    Args:
        token: what the Verifier sent.
        key: the Verifier's public key in PEM, P-256 or Ed25519.
        binding: the 64 bytes that we asked for.
        now: when it must hold.

    Raises:
        AttestationError: if it is malformed, another key's, for another question, not yet or no longer valid, or
            contradicts itself.
    """
    jwk, algorithm = _import(key, private=False)
    ear = _read(token, jwk, algorithm)
    if ear.issuer != jwk.thumbprint_uri():
        raise AttestationError(f"{_WHAT}: expected the issuer {jwk.thumbprint_uri()}, found {ear.issuer}")
    check_binding(_WHAT, from_base64url(ear.nonce, f"{_WHAT}, eat_nonce"), binding)
    now_s = now.timestamp()
    if not ear.issued_at - _CLOCK_SKEW_S <= now_s < ear.expires_at:
        raise AttestationError(f"{_WHAT}: it is not valid at {now:%Y-%m-%d %H:%M:%S}; ask for a new one")
    ((kind, submodule),) = ear.submodules.items()
    result = AttestationResult(
        kind=kind,
        provenance=submodule.provenance,
        vector=submodule.vector,
        required=frozenset(submodule.required),
        claims=submodule.claims,
        appraised_at=datetime.fromtimestamp(submodule.appraised_at, tz=UTC),
        unchecked=submodule.unchecked,
    )
    if result.tier.name.lower() != submodule.status:
        raise AttestationError(f"{_WHAT}: its status is {submodule.status}, its vector says {result.tier.name.lower()}")
    return result


def _read(token: str, jwk: Any, algorithm: str) -> _Ear:
    if len(token) > MAX_BYTES:
        raise AttestationError(f"{_WHAT}: expected at most {MAX_BYTES} bytes, found {len(token)}")
    parts = token.split(".")
    if len(parts) != _PARTS:
        raise AttestationError(f"{_WHAT}: expected {_PARTS} parts, found {len(parts)}")
    # The library would take two spellings of the same bytes for the same token.
    header, payload, _ = (from_base64url(part, _WHAT) for part in parts)
    if read_object(header, f"{_WHAT}, header", max_bytes=MAX_BYTES) != {"alg": algorithm, "typ": _TYPE}:
        raise AttestationError(f"{_WHAT}: expected the header of an {_TYPE} signed with {algorithm}, found another")
    jws, errors = require("joserfc.jws", extra="attest"), require("joserfc.errors", extra="attest")
    try:
        jws.deserialize_compact(token, jwk, [algorithm])
    except (errors.JoseError, ValueError) as fault:
        raise AttestationError(f"{_WHAT}: it is not signed by the key that was asked for ({one_line(fault)})") from None
    try:
        return _Ear.model_validate_json(payload)
    except ValidationError as fault:
        first = fault.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise AttestationError(f"{_WHAT}: {one_line(place)}: {first['msg']}") from None


def _import(pem: bytes, *, private: bool) -> tuple[Any, str]:
    """Return a key in the library's form, and the one algorithm that it is used with."""
    try:
        key = load_pem_private_key(pem, None) if private else load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as fault:
        kind = "private" if private else "public"
        raise AttestationError(f"{_WHAT}: expected a {kind} key in PEM without password ({one_line(fault)})") from None
    jwk = require("joserfc.jwk", extra="attest")
    if isinstance(key, ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey):
        return jwk.OKPKey.import_key(pem), "Ed25519"
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return jwk.ECKey.import_key(pem), "ES256"
    raise AttestationError(f"{_WHAT}: expected a key for P-256 or Ed25519, found another kind")
