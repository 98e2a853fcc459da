"""``part.json``: what a part's folder holds, so that a server or an enclave can be given that folder alone."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from siniantrust._files import sha256_bytes
from siniantrust.bundle._structure import TensorEntry, describe_tensor
from siniantrust.errors import BundleError
from siniantrust.graph import Part


class PartFile(BaseModel):
    """One part. ``sha256`` is of ``model.onnx``, which is a skeleton without weights where ``trusted`` is true."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_version: Literal[1] = 1
    name: str
    device: str
    trusted: bool
    sha256: str
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    batch_symbol: str | None


def dump_part_file(part: Part, model: bytes, *, device: str, trusted: bool) -> bytes:
    """Return the bytes of ``part.json`` for a part whose ``model.onnx`` holds ``model``."""
    described = PartFile(
        name=part.name,
        device=device,
        trusted=trusted,
        sha256=sha256_bytes(model),
        inputs=tuple(map(describe_tensor, part.inputs)),
        outputs=tuple(map(describe_tensor, part.outputs)),
        batch_symbol=part.batch_symbol,
    )
    return described.model_dump_json(indent=1).encode() + b"\n"


def parse_part_file(raw: bytes, *, origin: str) -> PartFile:
    """Check the bytes of a ``part.json``.

    Raises:
        BundleError: if they are malformed.
    """
    try:
        return PartFile.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "the file"
        raise BundleError(" ".join(f"{origin}: {place}: {first['msg']}; build it again".split())) from None
