"""Parts on disk, as a server takes them: an ONNX file and what is said of it, checked against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from siniantrust._files import sha256_bytes
from siniantrust.errors import BundleError
from siniantrust.graph import Part, Tensor
from siniantrust.odla._text import one_line

_PART_FILE = "part.json"
_BELOW = ("*", "*/exchange*")


class PartFile(BaseModel):
    """``part.json``: which part the folder holds; what it says beyond that is for others.

    ``inputs`` and ``outputs`` are names, or objects with a ``name``. A ``trusted`` part has no weights here.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    trusted: bool = False

    @field_validator("inputs", "outputs", mode="before")
    @classmethod
    def _names(cls, entries: Any) -> Any:
        if isinstance(entries, list):
            return tuple(entry.get("name") if isinstance(entry, dict) else entry for entry in entries)
        return entries


def read_parts(path: Path) -> list[tuple[Part, str]]:
    """Read every part at ``path`` that may be served, with the SHA-256 of its ONNX file.

    A folder without a ``part.json`` of its own is taken for a bundle: its parts are the folders below it, and below
    those what devices compute of a part under pads. Trusted ones are passed over.

    Raises:
        BundleError: as ``load_servables``.
    """
    if not path.is_dir() or (path / _PART_FILE).exists():
        return [_read_part(path)]
    folders = sorted(file.parent for pattern in _BELOW for file in path.glob(f"{pattern}/{_PART_FILE}"))
    untrusted = [folder for folder in folders if not _part_file(folder / _PART_FILE).trusted]
    if not untrusted:
        raise BundleError(
            f"{path} holds no part to serve: neither a {_PART_FILE} nor, below it, a folder of an untrusted part; give "
            "a bundle, a part's folder or an ONNX file"
        )
    found = [_read_part(folder) for folder in untrusted]
    names = [part.name for part, _ in found]
    for name in names:
        if names.count(name) > 1:
            raise BundleError(f"{path}: two parts are named {name!r}; each needs a name of its own to be served")
    return found


def _read_part(path: Path) -> tuple[Part, str]:
    described = _part_file(path / _PART_FILE) if path.is_dir() else None
    if described is not None and described.trusted:
        raise BundleError(f"{path} is a trusted part: it runs in its enclave only, and is not served")
    file = path / "model.onnx" if path.is_dir() else path
    data = _bytes(file)
    digest = sha256_bytes(data)
    if described is not None and described.sha256 != digest:
        raise BundleError(
            f"{file} is not the part that part.json names: sha256 {described.sha256} expected, {digest} found"
        )
    try:
        proto = onnx.ModelProto.FromString(data)
    except DecodeError:
        raise BundleError(f"{file} is not an ONNX model: {len(data)} bytes do not parse as one") from None
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in proto.graph.initializer):
        raise BundleError(f"{file} keeps weights in other files, which its sha256 does not cover; save it as one file")
    name = described.name if described else file.stem
    if not name or "/" in name or not name.isprintable():
        raise BundleError(f"{path}: {name!r} does not do as a model name: it stands in web addresses")
    return _part(name, proto, described, file), digest


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror}") from None


def _part_file(file: Path) -> PartFile:
    try:
        return PartFile.model_validate_json(_bytes(file))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "the file"
        raise BundleError(f"{file}: {where}: {one_line(first['msg'])}") from None


def _part(name: str, proto: onnx.ModelProto, described: PartFile | None, file: Path) -> Part:
    graph = proto.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = tuple(_tensor(value, file) for value in graph.input if value.name not in weights)
    outputs = tuple(_tensor(value, file) for value in graph.output)
    if described is not None:
        for kind, found, expected in (("inputs", inputs, described.inputs), ("outputs", outputs, described.outputs)):
            if sorted(tensor.name for tensor in found) != sorted(expected):
                raise BundleError(
                    f"{file}: {kind} {[tensor.name for tensor in found]} differ from part.json's {list(expected)}"
                )
    node_names = tuple(node.name for node in graph.node)
    return Part(name=name, proto=proto, inputs=inputs, outputs=outputs, node_names=node_names, batch_symbol=None)


def _tensor(value: onnx.ValueInfoProto, file: Path) -> Tensor:
    kind = value.type.tensor_type
    if not kind.HasField("shape") or kind.elem_type == onnx.TensorProto.UNDEFINED:
        raise BundleError(f"{file}: {value.name!r} has no type and shape; infer shapes before saving it")
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).name
    shape = tuple(extent.dim_value if extent.HasField("dim_value") else 1 for extent in kind.shape.dim)
    return Tensor(value.name, dtype, shape)
