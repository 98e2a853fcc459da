"""``plan.json``: written atomically, read back fail-closed, with a published schema."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from siniantrust._files import write_atomic
from siniantrust.errors import PlanError
from siniantrust.planner._plan import Plan

_MAX_BYTES = 256 << 20


def save_plan(plan: Plan, path: Path) -> None:
    """Write ``plan`` to ``path`` as JSON.

    Raises:
        PlanError: if the file cannot be written.
    """
    try:
        write_atomic(path, dump_plan(plan))
    except OSError as error:
        raise PlanError(f"plan {path}: cannot be written ({error.strerror})") from None


def dump_plan(plan: Plan) -> bytes:
    """Return the bytes of ``plan.json``."""
    return plan.model_dump_json(indent=1).encode() + b"\n"


def load_plan(path: Path) -> Plan:
    """Read and check a plan's form. Whether it is valid for a model is ``validate_plan``'s question.

    Raises:
        PlanError: if the file cannot be read, is not JSON, or is not a plan of this schema version.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise PlanError(f"plan {path}: larger than {_MAX_BYTES} bytes, so it is no plan")
        raw = path.read_bytes()
    except OSError as error:
        raise PlanError(f"plan {path}: cannot be read ({error.strerror})") from None
    return parse_plan(raw, origin=str(path))


def parse_plan(raw: bytes, *, origin: str) -> Plan:
    """Check the bytes of a plan; ``origin`` names them in errors.

    Raises:
        PlanError: if they are not a plan of this schema version.
    """
    try:
        return Plan.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "the file"
        message = " ".join(f"plan {origin}: {place}: {first['msg']}".split())
        raise PlanError(f"{message}; write it again with `sinian plan`") from None


def plan_schema() -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of ``plan.json``."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Plan.model_json_schema()}
