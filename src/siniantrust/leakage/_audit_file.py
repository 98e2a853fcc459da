"""The audit's file: written with a hash over its content, read back only if it is whole."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from siniantrust._files import sha256_bytes
from siniantrust.errors import AuditError
from siniantrust.leakage._schema import Audit

FILE_NAME = "audit.json"


def audit_id(content: dict[str, object]) -> str:
    """Return the hash of an audit's content without its ``id``: SHA-256 of the JSON with sorted keys."""
    rest = {key: value for key, value in content.items() if key != "id"}
    return sha256_bytes(json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode())


def sealed(audit: Audit) -> Audit:
    """Return the audit with the ``id`` that its content has."""
    return audit.model_copy(update={"id": audit_id(audit.model_dump(mode="json"))})


def audit_bytes(audit: Audit) -> bytes:
    """Return the audit as readable JSON."""
    return (json.dumps(audit.model_dump(mode="json"), indent=1, allow_nan=False) + "\n").encode()


def load_audit(path: Path) -> Audit:
    """Read an audit from its file, or from the folder that ``audit`` wrote.

    Raises:
        AuditError: if it cannot be read, is malformed, or was changed after it was written.
    """
    path = path / FILE_NAME if path.is_dir() else path
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise AuditError(f"audit {path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise AuditError(f"audit {path}: not a JSON file") from None
    try:
        audit = Audit.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"]) or "the file"
        raise AuditError(f"audit {path}: {place}: {first['msg']}") from None
    if audit.id != audit_id(content):
        raise AuditError(f"audit {path}: its id does not match its content; it was changed after it was written")
    return audit
