"""The audit inside a bundle: the evidence that the plan rests on, with its pictures."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from siniantrust.bundle._manifest import is_safe
from siniantrust.errors import AuditError, BundleError
from siniantrust.leakage import Audit, load_audit

AUDIT_FOLDER = "audit"
AUDIT_FILE = f"{AUDIT_FOLDER}/audit.json"


def read_audit_folder(folder: Path) -> tuple[Audit, dict[str, bytes]]:
    """Read ``audit.json`` and the pictures that it names, keyed by their place in the bundle.

    Raises:
        AuditError: if a file is missing, the audit is malformed or was changed, or a picture's path leaves the folder.
    """
    raw = _read(folder / "audit.json")
    audit = parse_audit(raw, origin=str(folder / "audit.json"))
    if load_audit(folder) != audit:  # it also holds the audit's id against its content
        raise AuditError(f"audit {folder}: audit.json changed while it was read; build again")
    files = {AUDIT_FILE: raw}
    for picture in sorted(named_pictures(audit)):
        if not is_safe(picture):
            raise AuditError(f"audit {folder}: the picture {picture[:200]!r} is no path inside the audit's folder")
        files[f"{AUDIT_FOLDER}/{picture}"] = _read(folder / picture)
    return audit, files


def parse_audit(raw: bytes, *, origin: str) -> Audit:
    """Check the bytes of an audit.

    Raises:
        AuditError: if they are malformed.
    """
    try:
        return Audit.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "the file"
        raise AuditError(
            " ".join(f"audit {origin}: {place}: {first['msg']}; run `sinian audit` again".split())
        ) from None


def named_pictures(audit: Audit) -> set[str]:
    """Return the files that an audit names beside itself."""
    results = [result for cut in audit.cuts for result in cut.attacks.values()]
    pictures = {picture for result in results for picture in (result.picture, result.worst_picture)}
    return {picture for picture in (*pictures, audit.originals_picture) if picture is not None}


def check_audit(contents: dict[str, bytes], *, origin: str) -> Audit | None:
    """Return the audit of a bundle whose files were read, or None if it has none.

    Raises:
        BundleError: if it is malformed or a picture that it names is missing.
    """
    if AUDIT_FILE not in contents:
        return None
    try:
        audit = parse_audit(contents[AUDIT_FILE], origin=AUDIT_FILE)
    except AuditError as error:
        raise BundleError(f"{origin}: {error}") from None
    missing = sorted(p for p in named_pictures(audit) if f"{AUDIT_FOLDER}/{p}" not in contents)
    if missing:
        raise BundleError(f"{origin}: {AUDIT_FILE} names the picture {missing[0]!r}, which the bundle does not hold")
    return audit


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AuditError(f"audit {path}: cannot be read ({error.strerror})") from None
