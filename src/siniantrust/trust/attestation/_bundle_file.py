"""Evidence as it travels and lies on disk: a JSON object with binary values in base64url."""

from __future__ import annotations

import json
import re
from pathlib import Path

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation._roles import EvidenceBundle
from siniantrust.trust.attestation._strict import from_base64url, read_object, to_base64url

MAX_BYTES = 4 << 20
_FIELDS = {"kind", "body", "endorsements"}
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_WHAT = "evidence bundle"


def evidence_to_json(evidence: EvidenceBundle) -> bytes:
    """Return evidence as JSON, for ``evidence_from_json``."""
    endorsements = {name: to_base64url(raw) for name, raw in sorted(evidence.endorsements.items())}
    fields = {"kind": evidence.kind, "body": to_base64url(evidence.body), "endorsements": endorsements}
    return json.dumps(fields, indent=1).encode() + b"\n"


def evidence_from_json(raw: bytes) -> EvidenceBundle:
    """Read evidence, believing nothing of it; only its outer form is checked.

    Raises:
        AttestationError: if it is larger than ``MAX_BYTES`` or not of the form that ``evidence_to_json`` writes.
    """
    fields = read_object(raw, _WHAT, max_bytes=MAX_BYTES)
    if fields.keys() != _FIELDS:
        raise AttestationError(f"{_WHAT}: expected exactly {', '.join(sorted(_FIELDS))}, found {_names(fields)}")
    kind, endorsements = fields["kind"], fields["endorsements"]
    if not isinstance(endorsements, dict):
        raise AttestationError(f"{_WHAT}: endorsements: expected an object, found {type(endorsements).__name__}")
    if not isinstance(kind, str) or not all(_NAME.fullmatch(name) for name in (kind, *endorsements)):
        raise AttestationError(f"{_WHAT}: expected names of small letters, digits and -._, found {_names(fields)}")
    return EvidenceBundle(
        kind=kind,
        body=from_base64url(fields["body"], f"{_WHAT}, body"),
        endorsements={name: from_base64url(text, f"{_WHAT}, {name}") for name, text in endorsements.items()},
    )


def load_evidence(path: Path) -> EvidenceBundle:
    """Read evidence from a file, as ``evidence_from_json`` does.

    Raises:
        AttestationError: as there, naming the file, or if it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as fault:
        raise AttestationError(f"evidence {path}: cannot be read ({fault.strerror})") from None
    try:
        return evidence_from_json(raw)
    except AttestationError as fault:
        raise AttestationError(f"evidence {path}: {fault}") from None


def _names(fields: dict[str, object]) -> str:
    return repr(sorted(fields))[:200]
