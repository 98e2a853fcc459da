"""All that one page is made of, read and checked to belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from siniantrust._files import sha256_bytes
from siniantrust.errors import AuditError, PlanError, SinianError
from siniantrust.report._audit_input import AuditRead
from siniantrust.report._explanation_input import ExplanationRead
from siniantrust.report._lineage import Lineage, load_lineage, source_name
from siniantrust.report._plan_input import PlanRead
from siniantrust.report._read import ReportError, read_audit, read_record
from siniantrust.report._run_input import RunRead


@dataclass(frozen=True)
class Sources:
    """Everything that one page is made of. ``files`` are (name, SHA-256) of what was read, in reading order.

    ``before`` is the audit of the model without the mask.
    """

    plan: PlanRead
    audit: AuditRead | None
    audit_folder: Path | None
    run: RunRead | None
    explanation: ExplanationRead | None
    lineage: Lineage
    before: AuditRead | None
    before_folder: Path | None
    files: tuple[tuple[str, str], ...]


def load_sources(
    *,
    audit: Path | None,
    plan: Path,
    run: Path | None,
    explanation: Path | None = None,
    trainings: Sequence[Path] = (),
    tune: Path | None = None,
    before: Path | None = None,
) -> Sources:
    """Read plan.json and, where given, what the other stages wrote; check that all belong together.

    Raises:
        PlanError: if the plan cannot be read or does not have its schema's form; or an explanation cannot, or is of
            another plan.
        AuditError: if the audit cannot, or is of another model, or is not the one that the plan was made from; or the
            audit before the mask cannot, or does not compare with it.
        ReportError: if the run, a training or the search cannot, or is of another model.
    """
    plan_read, data = read_record(plan, PlanRead, kind="plan", error=PlanError)
    files = [(plan.name, sha256_bytes(data))]
    audit_read: AuditRead | None = None
    if audit is not None:
        path = audit / "audit.json"
        audit_read, data = read_audit(audit)
        files.append((path.name, sha256_bytes(data)))
        _same_model(path, audit_read.model_sha256, plan, plan_read, kind="audit", error=AuditError)
        if plan_read.audit_id is not None and plan_read.audit_id != audit_read.id:
            raise AuditError(
                f"audit {path}: expected the one that {plan} was made from ({plan_read.audit_id}), found "
                f"{audit_read.id}; give that audit, or plan again"
            )
    run_read: RunRead | None = None
    if run is not None:
        run_read, data = read_record(run, RunRead, kind="run", error=ReportError)
        files.append((run.name, sha256_bytes(data)))
        _same_model(run, run_read.model_sha256, plan, plan_read, kind="run", error=ReportError)
    explained: ExplanationRead | None = None
    if explanation is not None:
        explained, data = read_record(explanation, ExplanationRead, kind="explanation", error=PlanError)
        files.append((explanation.name, sha256_bytes(data)))
        if explained.plan_sha256 != files[0][1]:
            raise PlanError(
                f"explanation {explanation}: expected one of {plan} (SHA-256 {files[0][1][:16]}…), found one of "
                f"{explained.plan_sha256[:16]}…; plan again with --explain"
            )
    lineage = load_lineage(trainings, tune, plan=plan, model_sha256=plan_read.model_sha256)
    files += lineage.files
    before_read: AuditRead | None = None
    if before is not None:
        before_read, data = read_audit(before)
        files.append((source_name(before / "audit.json"), sha256_bytes(data)))
        _comparable(before / "audit.json", before_read, audit_read)
    return Sources(
        plan=plan_read,
        audit=audit_read,
        audit_folder=audit,
        run=run_read,
        explanation=explained,
        lineage=lineage,
        before=before_read,
        before_folder=before,
        files=tuple(files),
    )


def _same_model(
    path: Path, found: str, plan: Path, plan_read: PlanRead, *, kind: str, error: type[SinianError]
) -> None:
    if found != plan_read.model_sha256:
        raise error(
            f"{kind} {path}: expected the model of {plan} (SHA-256 {plan_read.model_sha256[:16]}…), found one with "
            f"{found[:16]}…; give files that were made from one model"
        )


def _comparable(path: Path, before: AuditRead, after: AuditRead | None) -> None:
    """Refuse an audit before the mask that has nothing to stand beside, or is of the same model or of other data."""
    if after is None:
        raise AuditError(f"audit {path}: is shown beside the audit of the planned model; give that one too")
    if before.model_sha256 == after.model_sha256:
        raise AuditError(f"audit {path}: is of the planned model; give the audit of the model without the mask")
    if before.data.sha256 != after.data.sha256:
        raise AuditError(
            f"audit {path}: expected one on the data of the planned model's (SHA-256 {after.data.sha256[:16]}…), found "
            f"{before.data.sha256[:16]}…; audit both on the same data"
        )
