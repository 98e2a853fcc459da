"""Ahead-of-time artefacts: a part as a runtime compiled it, bound to what it was made from and what it was made for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from siniantrust.errors import DeviceError
from siniantrust.graph import Part, part_digest
from siniantrust.odla._device import Device, Executable


@dataclass(frozen=True, slots=True)
class Build:
    """What a device's artefacts depend on beside the part.

    Attributes:
        version: of the runtime, as it names itself.
        target: what the code is for: architecture, processor and options that change the code, in the backend's words.
    """

    version: str
    target: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled part. ``part_sha256`` is ``graph.part_digest`` of the part that it was made from."""

    backend: str
    version: str
    target: str
    part: str
    part_sha256: str
    data: bytes = field(repr=False)


@runtime_checkable
class AheadOfTime(Protocol):
    """A device that can compile a part now and load it later, perhaps on another machine of the same kind."""

    def build(self) -> Build:
        """Return what artefacts of this device are bound to."""

    def export(self, part: Part) -> bytes:
        """Compile ``part`` and return it as bytes. Raises DeviceError as ``compile`` does."""

    def load(self, part: Part, data: bytes) -> Executable:
        """Return an executable from what ``export`` made of the same part by the same build. Raises DeviceError."""


def export_part(device: Device, part: Part) -> Artifact:
    """Compile ``part`` ahead of time.

    Raises:
        DeviceError: if the backend cannot do so, or refuses the part; the message names device and part.
    """
    where = f"device {device.spec.name!r}, part {part.name!r}"
    if not isinstance(device, AheadOfTime):
        raise DeviceError(f"{where}: backend {device.spec.backend!r} compiles nothing ahead of time; build without it")
    build = device.build()
    try:
        data = device.export(part)
    except DeviceError as refusal:
        raise type(refusal)(f"{where}: cannot be compiled ahead of time: {refusal}") from refusal
    return Artifact(device.spec.backend, build.version, build.target, part.name, part_digest(part), data)


def load_artifact(device: Device, part: Part, artifacts: Sequence[Artifact]) -> Executable:
    """Load the one of ``artifacts`` that was made from ``part`` for this device.

    Raises:
        DeviceError: if there is none, naming device, part and how the nearest one differs; or if the runtime
            refuses it.
    """
    where = f"device {device.spec.name!r}, part {part.name!r}"
    if not isinstance(device, AheadOfTime):
        raise DeviceError(f"{where}: backend {device.spec.backend!r} loads nothing that was compiled ahead of time")
    if not artifacts:
        raise DeviceError(f"{where}: there is no artefact to load")
    wanted, digest = device.build(), part_digest(part)
    differences = [_difference(artifact, device.spec.backend, wanted, digest) for artifact in artifacts]
    for artifact, found in zip(artifacts, differences, strict=True):
        if found is None:
            try:
                return device.load(part, artifact.data)
            except DeviceError as refusal:
                raise type(refusal)(f"{where}: its artefact does not load: {refusal}") from refusal
    raise DeviceError(
        f"{where}: the artefact was made {differences[-1]}; "
        "build the bundle again for this device, or without artefacts"
    )


def _difference(artifact: Artifact, backend: str, wanted: Build, part_sha256: str) -> str | None:
    """Say how an artefact differs from what is needed, the most telling difference first; None if it does not."""
    for what, found, expected in (
        ("from part", artifact.part_sha256[:12], part_sha256[:12]),
        ("by backend", artifact.backend, backend),
        ("by version", artifact.version, wanted.version),
        ("for", artifact.target, wanted.target),
    ):
        if found != expected:
            return f"{what} {found!r}, expected {expected!r}"
    return None
