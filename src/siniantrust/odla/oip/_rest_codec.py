"""Inference messages in JSON, with the binary tensor data extension, read with suspicion.

A body is a JSON object, behind which the binary tensors stand one after the other; the header
``Inference-Header-Content-Length`` says how long the object is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from siniantrust.errors import DataError, ProtocolError
from siniantrust.odla.oip._messages import InferAnswer, InferRequest, ModelMetadata, ServerMetadata, TensorMetadata
from siniantrust.odla.oip._tensors import DATATYPES, checked_shape, dtype_of, from_numbers, from_raw, to_raw

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY_EXTENSION = "binary_tensor_data"
_MAX_LENGTH_DIGITS = 20


def parse_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object; NaN and Infinity, which JSON does not have, are refused."""

    def refuse(constant: str) -> NoReturn:
        raise ProtocolError(f"{constant} is not JSON; send such values as binary tensor data")

    try:
        value = json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise ProtocolError(f"{len(data)} bytes do not parse as JSON") from None
    if not isinstance(value, dict):
        raise ProtocolError(f"a JSON object is expected, found {type(value).__name__}")
    return value


def encode_request(request: InferRequest) -> tuple[bytes, int | None]:
    """Write a request; returns the body and, if it has binary tensors, the length of its JSON object.

    Raises:
        DataError: for NaN or an infinity that would have to be JSON.
    """
    entries, blobs = _entries(request.inputs, binary=dict.fromkeys(request.inputs, request.binary))
    body: dict[str, Any] = {"inputs": entries}
    if request.outputs:
        body["outputs"] = [
            {"name": name, **({"parameters": {"binary_data": True}} if binary else {})}
            for name, binary in request.outputs.items()
        ]
    if request.id:
        body["id"] = request.id
    return _joined(body, blobs)


def decode_request(body: bytes, header_length: str | None) -> InferRequest:
    """Read the body of an infer request."""
    message, blob = _parted(body, header_length)
    outputs = _list(message, "outputs", default=[])
    parameters = _parameters(message)
    every = parameters.get("binary_data_output", False) is True
    wanted = {}
    for entry in outputs:
        name = _name(entry)
        if name in wanted:
            raise ProtocolError(f"output {name!r} is asked for twice")
        wanted[name] = _parameters(entry).get("binary_data", every) is True
    id_ = message.get("id", "")
    if not isinstance(id_, str):
        raise ProtocolError(f"id must be a string, found {type(id_).__name__}")
    return InferRequest(inputs=_tensors(_list(message, "inputs"), blob), outputs=wanted, binary=every, id=id_)


def encode_answer(answer: InferAnswer, *, id_: str, binary: Mapping[str, bool]) -> tuple[bytes, int | None]:
    """Write an answer, each output as ``binary`` says; returns what ``encode_request`` does.

    Raises:
        DataError: for NaN or an infinity that would have to be JSON.
    """
    entries, blobs = _entries(answer.outputs, binary=binary)
    body = {"model_name": answer.model, "model_version": answer.version, "outputs": entries}
    return _joined({**body, "id": id_} if id_ else body, blobs)


def decode_answer(body: bytes, header_length: str | None) -> InferAnswer:
    """Read the body of an answer."""
    message, blob = _parted(body, header_length)
    model, version = message.get("model_name", ""), message.get("model_version") or ""
    if not isinstance(model, str) or not isinstance(version, str):
        raise ProtocolError("model_name and model_version must be strings")
    return InferAnswer(model=model, version=version, outputs=_tensors(_list(message, "outputs"), blob))


def encode_metadata(metadata: ModelMetadata) -> dict[str, Any]:
    """Write a model's metadata as JSON."""

    def tensors(entries: Sequence[TensorMetadata]) -> list[dict[str, Any]]:
        return [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in entries]

    return {
        "name": metadata.name,
        "versions": list(metadata.versions),
        "platform": metadata.platform,
        "inputs": tensors(metadata.inputs),
        "outputs": tensors(metadata.outputs),
    }


def decode_metadata(body: bytes) -> ModelMetadata:
    """Read a model's metadata."""
    message = parse_object(body)

    def tensors(key: str) -> tuple[TensorMetadata, ...]:
        found = []
        for entry in _list(message, key, default=[]):
            shape = entry.get("shape")
            if not isinstance(shape, list) or any(not isinstance(e, int) or isinstance(e, bool) for e in shape):
                raise ProtocolError(f"metadata of {_name(entry)!r}: shape must be a list of integers")
            found.append(TensorMetadata(_name(entry), str(entry.get("datatype")), tuple(shape)))
        return tuple(found)

    return ModelMetadata(
        name=str(message.get("name")),
        versions=tuple(str(version) for version in _strings(message, "versions")),
        platform=str(message.get("platform", "")),
        inputs=tensors("inputs"),
        outputs=tensors("outputs"),
    )


def decode_server_metadata(body: bytes) -> ServerMetadata:
    """Read a server's metadata."""
    message = parse_object(body)
    return ServerMetadata(
        name=str(message.get("name", "")),
        version=str(message.get("version", "")),
        extensions=tuple(_strings(message, "extensions")),
    )


def _entries(
    arrays: Mapping[str, np.ndarray], *, binary: Mapping[str, bool]
) -> tuple[list[dict[str, Any]], list[bytes]]:
    entries, blobs = [], []
    for name, array in arrays.items():
        entry: dict[str, Any] = {"name": name, "datatype": DATATYPES[array.dtype.name], "shape": list(array.shape)}
        if binary[name]:
            blobs.append(to_raw(array))
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        elif array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"tensor {name!r} has NaN or infinity, which JSON cannot carry; use binary tensor data")
        else:
            entry["data"] = array.ravel().tolist()
        entries.append(entry)
    return entries, blobs


def _joined(message: dict[str, Any], blobs: Sequence[bytes]) -> tuple[bytes, int | None]:
    header = json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
    return b"".join([header, *blobs]), len(header) if blobs else None


def _parted(body: bytes, header_length: str | None) -> tuple[dict[str, Any], memoryview]:
    view = memoryview(body)
    if header_length is None:
        return parse_object(body), view[:0]
    plain = header_length.isascii() and header_length.isdigit() and len(header_length) <= _MAX_LENGTH_DIGITS
    if not plain or int(header_length) > len(body):
        raise ProtocolError(f"{HEADER_LENGTH} {header_length[:40]!r} does not fit a body of {len(body)} bytes")
    length = int(header_length)
    return parse_object(bytes(view[:length])), view[length:]


def _tensors(entries: Sequence[dict[str, Any]], blob: memoryview) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    start = 0
    for entry in entries:
        name = _name(entry)
        if name in arrays:
            raise ProtocolError(f"tensor {name!r} stands twice in the message")
        dtype = dtype_of(entry.get("datatype"), tensor=name)
        shape = checked_shape(entry.get("shape"), tensor=name)
        size = _parameters(entry).get("binary_data_size")
        if size is None:
            arrays[name] = from_numbers(_list(entry, "data", of=object), tensor=name, dtype=dtype, shape=shape)
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(blob) - start:
            raise ProtocolError(
                f"tensor {name!r}: binary_data_size {size!r} exceeds the {len(blob) - start} bytes left"
            )
        if "data" in entry:
            raise ProtocolError(f"tensor {name!r} has both binary data and JSON data")
        arrays[name] = from_raw(blob[start : start + size], tensor=name, dtype=dtype, shape=shape)
        start += size
    if start != len(blob):
        raise ProtocolError(f"{len(blob) - start} bytes behind the last binary tensor belong to none")
    return arrays


def _list(message: dict[str, Any], key: str, *, default: list[Any] | None = None, of: type = dict) -> list[Any]:
    value = message.get(key, default)
    if not isinstance(value, list) or any(not isinstance(entry, of) for entry in value):
        raise ProtocolError(f"{key!r} must be a list{' of objects' if of is dict else ''}")
    return value


def _strings(message: dict[str, Any], key: str) -> list[str]:
    # Some servers send null for an empty list.
    value = message.get(key) or []
    if not isinstance(value, list) or any(not isinstance(entry, str) for entry in value):
        raise ProtocolError(f"{key!r} must be a list of strings")
    return value


def _name(entry: dict[str, Any]) -> str:
    name = entry.get("name")
    if not isinstance(name, str):
        raise ProtocolError("a tensor without a name stands in the message")
    return name


def _parameters(entry: dict[str, Any]) -> dict[str, Any]:
    parameters = entry.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise ProtocolError("'parameters' must be an object")
    return parameters
