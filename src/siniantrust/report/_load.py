"""Reading the stages' files: every fault is one line that names the file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from siniantrust._files import sha256_bytes
from siniantrust.errors import AuditError, PlanError, SinianError
from siniantrust.report._audit_input import AuditRead
from siniantrust.report._explanation_input import ExplanationRead
from siniantrust.report._plan_input import PlanRead
from siniantrust.report._run_input import RunRead

_R = TypeVar("_R", bound=BaseModel)


class ReportError(SinianError):
    """A run.json is malformed or belongs to another model."""


@dataclass(frozen=True)
class Sources:
    """Everything that one page is made of. ``files`` are (name, SHA-256) of what was read, in reading order."""

    plan: PlanRead
    audit: AuditRead | None
    audit_folder: Path | None
    run: RunRead | None
    explanation: ExplanationRead | None
    files: tuple[tuple[str, str], ...]


def load_sources(*, audit: Path | None, plan: Path, run: Path | None, explanation: Path | None = None) -> Sources:
    """Read plan.json and, where given, audit.json, run.json and explanation.json; check that they belong together.

    Raises:
        PlanError: if the plan cannot be read or does not have its schema's form; or an explanation cannot, or is of
            another plan.
        AuditError: if the audit cannot, or is of another model, or is not the one that the plan was made from.
        ReportError: if the run cannot, or is of another model.
    """
    plan_read, data = _read(plan, PlanRead, kind="plan", error=PlanError)
    files = [(plan.name, sha256_bytes(data))]
    audit_read: AuditRead | None = None
    if audit is not None:
        path = audit / "audit.json"
        audit_read, data = _read(path, AuditRead, kind="audit", error=AuditError)
        files.append((path.name, sha256_bytes(data)))
        _same_model(path, audit_read.model_sha256, plan, plan_read, kind="audit", error=AuditError)
        _check_id(path, audit_read.id, data)
        if plan_read.audit_id is not None and plan_read.audit_id != audit_read.id:
            raise AuditError(
                f"audit {path}: expected the one that {plan} was made from ({plan_read.audit_id}), found "
                f"{audit_read.id}; give that audit, or plan again"
            )
    run_read: RunRead | None = None
    if run is not None:
        run_read, data = _read(run, RunRead, kind="run", error=ReportError)
        files.append((run.name, sha256_bytes(data)))
        _same_model(run, run_read.model_sha256, plan, plan_read, kind="run", error=ReportError)
    explained: ExplanationRead | None = None
    if explanation is not None:
        explained, data = _read(explanation, ExplanationRead, kind="explanation", error=PlanError)
        files.append((explanation.name, sha256_bytes(data)))
        if explained.plan_sha256 != files[0][1]:
            raise PlanError(
                f"explanation {explanation}: expected one of {plan} (SHA-256 {files[0][1][:16]}…), found one of "
                f"{explained.plan_sha256[:16]}…; plan again with --explain"
            )
    return Sources(
        plan=plan_read,
        audit=audit_read,
        audit_folder=audit,
        run=run_read,
        explanation=explained,
        files=tuple(files),
    )


def _read(path: Path, schema: type[_R], *, kind: str, error: type[SinianError]) -> tuple[_R, bytes]:
    """Return the record and the bytes that it was read from."""
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


def _check_id(path: Path, found: str, data: bytes) -> None:
    """Refuse an audit whose id is not the SHA-256 of the rest of it (JSON, sorted keys, no white space, ASCII)."""
    try:
        content = json.loads(data)
        del content["id"]
        expected = sha256_bytes(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
    except (ValueError, RecursionError):
        raise AuditError(f"audit {path}: a number or a nesting beyond what Python reads; audit again") from None
    if found != expected:
        raise AuditError(
            f"audit {path}: its id does not fit its content: it was changed after it was written; audit again"
        )


def _same_model(
    path: Path, found: str, plan: Path, plan_read: PlanRead, *, kind: str, error: type[SinianError]
) -> None:
    if found != plan_read.model_sha256:
        raise error(
            f"{kind} {path}: expected the model of {plan} (SHA-256 {plan_read.model_sha256[:16]}…), found one with "
            f"{found[:16]}…; give files that were made from one model"
        )
