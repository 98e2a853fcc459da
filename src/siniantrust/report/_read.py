"""Reading one of the stages' files: every fault is one line that names the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from siniantrust._files import sha256_bytes
from siniantrust.errors import AuditError, SinianError
from siniantrust.report._audit_input import AuditRead

_R = TypeVar("_R", bound=BaseModel)


class ReportError(SinianError):
    """What a run, a training or a search left is malformed or belongs to another model."""


def read_record(path: Path, schema: type[_R], *, kind: str, error: type[SinianError]) -> tuple[_R, bytes]:
    """Return the record and the bytes that it was read from.

    Raises:
        SinianError: of the type ``error``, if the file cannot be read or does not have its schema's form.
    """
    try:
        data = path.read_bytes()
        return schema.model_validate_json(data), data
    except OSError as fault:
        raise error(f"{kind} {path}: cannot be read ({fault.strerror}); run the stage that writes it") from None
    except ValidationError as fault:
        first = fault.errors()[0]
        place = " ".join(".".join(str(step) for step in first["loc"]).split())
        where = f"{place}: " if place else ""
        what = " ".join(first["msg"].split())
        raise error(f"{kind} {path}: {where}{what}; write it again with the stage it comes from") from None


def read_audit(folder: Path) -> tuple[AuditRead, bytes]:
    """Return the audit of a folder and the bytes that it was read from.

    Raises:
        AuditError: if it cannot be read, is malformed, or its id is not the SHA-256 of the rest of it (JSON, sorted
            keys, no white space, ASCII).
    """
    path = folder / "audit.json"
    found, data = read_record(path, AuditRead, kind="audit", error=AuditError)
    try:
        content = json.loads(data)
        del content["id"]
        expected = sha256_bytes(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
    except (ValueError, RecursionError):
        raise AuditError(f"audit {path}: a number or a nesting beyond what Python reads; audit again") from None
    if found.id != expected:
        raise AuditError(
            f"audit {path}: its id does not fit its content: it was changed after it was written; audit again"
        )
    return found, data
