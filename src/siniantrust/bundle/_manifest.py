"""``manifest.json``: what a bundle consists of. Its exact bytes are signed."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from siniantrust.errors import BundleError

SCHEMA_VERSION: Literal[2] = 2
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
SIGNATURE_BYTES = 64
MAX_MANIFEST_BYTES = 4 << 20
LINEAGE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
_STEP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class FileEntry(_Record):
    """One file of the bundle."""

    sha256: Sha256
    size_bytes: int = Field(ge=0)


class Manifest(_Record):
    """The signed description of a bundle. ``files`` holds every file but the manifest and its signature."""

    schema_version: Literal[2] = SCHEMA_VERSION
    bundle_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    lineage: Annotated[str, StringConstraints(pattern=LINEAGE)] = Field(
        description="name of what has versions; bundles of one lineage replace each other"
    )
    version: int = Field(ge=1, description="once a version was opened, older ones of its lineage are refused")
    model_name: str
    model_sha256: Sha256
    signer: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] = Field(
        description="fingerprint of the signing key: which one to ask for, not one to believe"
    )
    created: str = Field(description="time of building, RFC 3339, UTC")
    siniantrust_version: str
    files: dict[str, FileEntry]


def dump_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of ``manifest.json``."""
    return manifest.model_dump_json(indent=1).encode() + b"\n"


def parse_manifest(raw: bytes, *, origin: str) -> Manifest:
    """Check the bytes of a manifest; ``origin`` names it in errors.

    Raises:
        BundleError: if it is malformed, or a path in it leaves the bundle.
    """
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "the file"
        raise BundleError(" ".join(f"{origin}: {place[:200]}: {first['msg']}; build it again".split())) from None
    for path in manifest.files:
        if not is_safe(path) or path in {MANIFEST, SIGNATURE}:
            raise BundleError(f"{origin}: {path[:200]!r} is no path of a file inside a bundle")
    return manifest


def is_safe(path: str) -> bool:
    """Return whether a relative path stays inside its folder, whatever the system makes of names."""
    return len(path) <= 1000 and all(_STEP.fullmatch(step) for step in path.split("/"))  # noqa: PLR2004 - a path's length
