"""Evidence as JSON, for the wire and for files; what is read is believed in nothing."""

from __future__ import annotations

import base64
import binascii
import json

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation._roles import EvidenceBundle

MAX_EVIDENCE_BYTES = 512 << 10
_MAX_ENDORSEMENTS = 32
_FIELDS = {"kind", "body", "endorsements"}


def dump_evidence(evidence: EvidenceBundle) -> bytes:
    """Return evidence as JSON; bytes are in base64.

    Raises:
        AttestationError: if it is larger than ``parse_evidence_bundle`` reads.
    """
    raw = json.dumps(
        {
            "kind": evidence.kind,
            "body": base64.b64encode(evidence.body).decode(),
            "endorsements": {name: base64.b64encode(data).decode() for name, data in evidence.endorsements.items()},
        },
        sort_keys=True,
    ).encode()
    if len(raw) > MAX_EVIDENCE_BYTES:
        raise AttestationError(f"evidence: {len(raw)} bytes are over the limit of {MAX_EVIDENCE_BYTES}")
    return raw


def parse_evidence_bundle(raw: bytes | bytearray) -> EvidenceBundle:
    """Read what ``dump_evidence`` wrote.

    Raises:
        AttestationError: for anything else.
    """
    if len(raw) > MAX_EVIDENCE_BYTES:
        raise AttestationError(f"evidence: {len(raw)} bytes are over the limit of {MAX_EVIDENCE_BYTES}")
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        raise AttestationError(f"evidence: {len(raw)} bytes that are no JSON") from None
    if not isinstance(fields, dict) or fields.keys() != _FIELDS or not isinstance(fields["kind"], str):
        raise AttestationError(f"evidence: expected an object of {', '.join(sorted(_FIELDS))}")
    endorsements = fields["endorsements"]
    if not isinstance(endorsements, dict) or len(endorsements) > _MAX_ENDORSEMENTS:
        raise AttestationError(f"evidence: expected at most {_MAX_ENDORSEMENTS} endorsements by name")
    return EvidenceBundle(
        kind=fields["kind"],
        body=_binary(fields["body"], "body"),
        endorsements={name: _binary(data, f"endorsement {name[:40]!r}") for name, data in endorsements.items()},
    )


def _binary(text: object, name: str) -> bytes:
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise AttestationError(f"evidence: {name}: expected base64")
