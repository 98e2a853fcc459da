"""Enrolment: a Relying Party finds out, once and interactively, that an attestation key lives in an endorsed TPM.

What it found it signs with a key of its own, so that any Verifier that has the public half among its anchors, under a
name that starts with ``enrolment:``, believes it; the record is no secret and may travel with the evidence.
"""

from __future__ import annotations

import hmac
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation.tpm2._constants import SHA256_BYTES
from siniantrust.trust.attestation.tpm2._credential import AkChallenge, make_challenge
from siniantrust.trust.attestation.tpm2._ek_chain import ENROLMENT_PREFIX, verify_endorsement
from siniantrust.trust.attestation.tpm2._identity import Identity

_DOMAIN = b"siniantrust tpm2 enrolment 1\0"
_SIGNATURE_BYTES = 64
_MAX_BYTES = 1024
_FIELDS = {
    "ak_name": re.compile(r"000b[0-9a-f]{64}"),
    "ek_name": re.compile(r"000b[0-9a-f]{64}"),
    "enrolled": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", re.ASCII),
}


@dataclass(frozen=True, slots=True)
class PendingEnrolment:
    """An enrolment whose challenge is on its way. It is answered once; keep ``answer`` from the Attester.

    Attributes:
        identity: whom it is for.
        anchor: the anchor that vouches for its endorsement key.
        challenge: what to send to the Attester.
        answer: what the challenge holds.
    """

    identity: Identity
    anchor: str
    challenge: AkChallenge
    answer: bytes = field(repr=False)

    def complete(self, answer: bytes, *, signing_key: Ed25519PrivateKey, now: datetime) -> bytes:
        """Return the signed record, for evidence of this attestation key.

        Raises:
            AttestationError: if the Attester's answer is not what the challenge holds.
        """
        if not hmac.compare_digest(answer, self.answer):
            raise AttestationError(
                "TPM enrolment: expected what the challenge holds, found something else; the attestation key does not "
                "live in the TPM of this endorsement key"
            )
        record = _encode(
            {
                "ak_name": self.identity.ak.name.hex(),
                "ek_name": self.identity.ek.name.hex(),
                "enrolled": now.astimezone(UTC).isoformat(timespec="seconds"),
            }
        )
        return signing_key.sign(_DOMAIN + record) + record


def begin_enrolment(identity: Identity, *, anchors: Mapping[str, bytes], now: datetime) -> PendingEnrolment:
    """Check what vouches for an endorsement key, and make a challenge that only its TPM can answer.

    Raises:
        AttestationError: if no anchor vouches for it at time ``now``.
    """
    anchor = verify_endorsement(identity, anchors, now)
    answer = os.urandom(SHA256_BYTES)
    return PendingEnrolment(identity, anchor, make_challenge(identity.ek, identity.ak.name, answer), answer)


def check_enrolment(raw: bytes, identity: Identity, anchors: Mapping[str, bytes]) -> bool:
    """Check an enrolment record; return whether it could be checked: whether any anchor signs enrolments.

    Raises:
        AttestationError: if it is malformed, of other keys than those of ``identity``, or signed by no such anchor.
    """
    signature, body = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
    record = _parse(body)
    if (record["ak_name"], record["ek_name"]) != (identity.ak.name.hex(), identity.ek.name.hex()):
        raise AttestationError("TPM enrolment: it is for other keys than those of this evidence; enrol this TPM")
    keys = [_load_key(name, anchor) for name, anchor in anchors.items() if name.startswith(ENROLMENT_PREFIX)]
    for key in keys:
        try:
            key.verify(signature, _DOMAIN + body)
        except InvalidSignature:
            continue
        return True
    if keys:
        raise AttestationError("TPM enrolment: it is signed by none of the anchors, or was changed; enrol this TPM")
    return False


def _load_key(name: str, raw: bytes) -> Ed25519PublicKey:
    try:
        key = load_der_public_key(raw)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise AttestationError(f"TPM anchor {name!r}: expected an Ed25519 public key in DER, found something else")
    return key


def _encode(record: Mapping[str, str]) -> bytes:
    return json.dumps(record, sort_keys=True).encode()


def _parse(raw: bytes) -> dict[str, str]:
    try:
        if len(raw) > _MAX_BYTES:
            raise ValueError(f"{len(raw)} bytes")  # noqa: TRY301 - every fault takes the same exit below
        record = json.loads(raw)
        if record.keys() != _FIELDS.keys() or not all(_FIELDS[name].fullmatch(record[name]) for name in _FIELDS):
            raise ValueError("its fields")  # noqa: TRY301 - as above
        if _encode(record) != raw:
            raise ValueError("not its form")  # noqa: TRY301 - as above
    except (ValueError, TypeError, AttributeError, RecursionError) as fault:
        raise AttestationError(f"TPM enrolment: expected a signed record, found a fault in it ({fault})") from None
    return {name: str(record[name]) for name in _FIELDS}
