"""What a TPM signs about itself (TPMS_ATTEST), and the signature below it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation.tpm2._constants import (
    GENERATED_MAGIC,
    NAME_BYTES,
    SHA256_BYTES,
    ST_ATTEST_NV,
    ST_ATTEST_QUOTE,
    Algorithm,
    Handle,
)
from siniantrust.trust.attestation.tpm2._pcr import read_selection
from siniantrust.trust.attestation.tpm2._public import AK_TEMPLATE, COORDINATE_BYTES, PublicArea
from siniantrust.trust.attestation.tpm2._wire import MAX_BYTES, Reader, uint


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What every statement of a TPM begins with.

    Attributes:
        signer: qualified name of the key that signed: it says which hierarchy the key lives in.
        extra_data: what the caller had the TPM put in.
        clock_ms: milliseconds that the TPM was powered since its clock was last set to zero.
        reset_count: resets of the TPM.
        restart_count: resumes since the last reset.
        safe: whether ``clock_ms`` is sure to be later than any that was told before.
        firmware_version: the TPM's own firmware.
    """

    signer: bytes
    extra_data: bytes
    clock_ms: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: int


@dataclass(frozen=True, slots=True)
class Quote:
    """A statement about registers: which ones, and the digest over their values."""

    statement: Statement
    pcrs: frozenset[int]
    pcr_digest: bytes


@dataclass(frozen=True, slots=True)
class CertifiedNv:
    """A statement about an NV index: its name and what it holds."""

    statement: Statement
    index_name: bytes
    contents: bytes


def qualified_name(key: PublicArea) -> bytes:
    """Return the qualified name of a primary key of the endorsement hierarchy.

    In that hierarchy a TPM tells its true counters; to keys of the owner's it tells masked ones.
    """
    return uint(2, Algorithm.SHA256) + hashlib.sha256(uint(4, Handle.ENDORSEMENT) + key.name).digest()


def check_ak(key: PublicArea) -> None:
    """Make sure that a key, if it lives in a TPM, signs nothing but what that TPM says itself.

    Raises:
        AttestationError: if its attributes or its algorithm are not those of an attestation key.
    """
    if not key.matches(AK_TEMPLATE):
        raise AttestationError(
            f"TPM attestation key: expected a restricted signing key on P-256 that cannot leave its TPM "
            f"({AK_TEMPLATE.attributes:#x}), found {key.kind} with attributes {key.attributes:#x}"
        )


def _statement(reader: Reader, kind: int) -> Statement:
    reader.expect(4, GENERATED_MAGIC, "magic TPM_GENERATED")
    reader.expect(2, kind, "type of statement")
    signer = reader.exactly(NAME_BYTES, "a qualified name")
    extra_data = reader.sized(at_most=64)
    clock_ms, reset_count, restart_count, safe = (reader.uint(size_bytes) for size_bytes in (8, 4, 4, 1))
    if safe > 1:
        raise reader.fault("safe to be 0 or 1", safe)
    return Statement(
        signer=signer,
        extra_data=extra_data,
        clock_ms=clock_ms,
        reset_count=reset_count,
        restart_count=restart_count,
        safe=bool(safe),
        firmware_version=reader.uint(8),
    )


def parse_quote(raw: bytes) -> Quote:
    """Read a quote.

    Raises:
        TpmError: if it is malformed, or no quote that a TPM made.
    """
    reader = Reader(raw, "quote")
    quote = Quote(_statement(reader, ST_ATTEST_QUOTE), read_selection(reader), reader.exactly(SHA256_BYTES, "a digest"))
    reader.end()
    return quote


def parse_certified_nv(raw: bytes) -> CertifiedNv:
    """Read a statement about an NV index, all of which must be certified from its start.

    Raises:
        TpmError: if it is malformed, or no such statement.
    """
    reader = Reader(raw, "certified NV index")
    statement = _statement(reader, ST_ATTEST_NV)
    index_name = reader.exactly(NAME_BYTES, "a name")
    reader.expect(2, 0, "offset")
    certified = CertifiedNv(statement, index_name, reader.sized(at_most=MAX_BYTES))
    reader.end()
    return certified


def split_signed(raw: bytes) -> tuple[bytes, bytes]:
    """Split what a TPM answers, a statement and its signature, into the statement and the signature in DER.

    Raises:
        TpmError: if it is not one statement and one ECDSA signature over SHA-256.
    """
    reader = Reader(raw, "signed statement")
    statement = reader.sized(at_most=MAX_BYTES)
    reader.expect(2, Algorithm.ECDSA, "signature scheme")
    reader.expect(2, Algorithm.SHA256, "hash of the signature")
    numbers = [int.from_bytes(reader.exactly(COORDINATE_BYTES, "a number"), "big") for _ in range(2)]
    reader.end()
    return statement, encode_dss_signature(*numbers)


def check_signature(ak: PublicArea, statement: bytes, signature: bytes) -> None:
    """Verify a statement's signature.

    Raises:
        AttestationError: if it is not the attestation key's.
    """
    key = ak.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise AttestationError("TPM attestation key: expected a key on P-256, found one for RSA")
    try:
        key.verify(signature, statement, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise AttestationError("TPM statement: its signature is not the attestation key's; it was changed") from None
