"""Ahead-of-time artefacts in a bundle: ``partN/ahead/`` with a numbered description and blob for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from siniantrust.bundle._manifest import Sha256
from siniantrust.errors import BundleError
from siniantrust.graph import Part, part_digest
from siniantrust.odla import Artifact

_FOLDER = "ahead"


class ArtifactFile(BaseModel):
    """What one artefact was made from and for; see ``odla.Artifact``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_version: Literal[1] = 1
    backend: str
    version: str
    target: str
    part: str
    part_sha256: Sha256


def dump_artifacts(part: Part, artifacts: Sequence[Artifact]) -> dict[str, bytes]:
    """Return the files of a part's artefacts, by path inside the part's folder.

    Raises:
        BundleError: if one was made from another part.
    """
    contents: dict[str, bytes] = {}
    for number, artifact in enumerate(artifacts):
        _check(artifact, part, origin=f"{part.name}: artefact of {artifact.backend}")
        described = ArtifactFile(
            backend=artifact.backend,
            version=artifact.version,
            target=artifact.target,
            part=artifact.part,
            part_sha256=artifact.part_sha256,
        )
        contents[f"{_FOLDER}/{number}.json"] = described.model_dump_json(indent=1).encode() + b"\n"
        contents[f"{_FOLDER}/{number}.bin"] = artifact.data
    return contents


def read_artifacts(contents: Mapping[str, bytes], part: Part, *, origin: str) -> tuple[Artifact, ...]:
    """Read the artefacts of ``part`` from a bundle's checked files.

    Raises:
        BundleError: if a description is malformed, lacks its blob, or is of another part.
    """
    found: list[Artifact] = []
    while (path := f"{part.name}/{_FOLDER}/{len(found)}.json") in contents:
        where = f"{origin}: {path}"
        try:
            described = ArtifactFile.model_validate_json(contents[path])
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(step) for step in first["loc"]) or "the file"
            raise BundleError(" ".join(f"{where}: {place}: {first['msg']}; build it again".split())) from None
        blob = contents.get(path.removesuffix(".json") + ".bin")
        if blob is None:
            raise BundleError(f"{where}: its blob is missing; build the bundle again")
        artifact = Artifact(**described.model_dump(exclude={"schema_version"}), data=blob)
        _check(artifact, part, origin=where)
        found.append(artifact)
    return tuple(found)


def _check(artifact: Artifact, part: Part, *, origin: str) -> None:
    if (artifact.part, artifact.part_sha256) != (part.name, part_digest(part)):
        raise BundleError(
            f"{origin}: it was made from {artifact.part!r} ({artifact.part_sha256[:12]}), not from {part.name!r} "
            f"({part_digest(part)[:12]}); build the bundle again"
        )
