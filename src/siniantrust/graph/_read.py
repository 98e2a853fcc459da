"""From a file to a protobuf message that holds everything: the model and, where it has some, its external data."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto, helper

from siniantrust.errors import ModelError
from siniantrust.graph._uses import subgraphs

# Two elements of these types share one byte (ONNX IR specification, "Tensor definition").
_HALF_BYTE_TYPES = ("INT4", "UINT4", "FLOAT4E2M1")
_QUARTER_BYTE_TYPES = ("INT2", "UINT2")
_FREE_TEXT = ("doc_string", "key", "value")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def read_model(path: Path) -> onnx.ModelProto:
    """Read an ONNX model with its external data.

    Raises:
        ModelError: if the file, or an external file that it names, cannot be read, is truncated or is no ONNX model,
            or an external file lies outside the model's folder.
    """
    try:
        data = path.read_bytes()
    except IsADirectoryError:
        raise ModelError(f"model {path}: is a folder; give the path of an .onnx file") from None
    except OSError as error:
        raise ModelError(f"model {path}: cannot be read ({error.strerror})") from None
    if not data:
        raise ModelError(f"model {path}: the file is empty; expected an ONNX model")
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except DecodeError:
        raise ModelError(f"model {path}: not an ONNX model, or truncated ({len(data)} bytes)") from None
    require_model(proto, origin=f"model {path}")
    for tensor in tensors_of(proto):
        if tensor.data_location == TensorProto.EXTERNAL:
            _embed(tensor, path.parent, origin=f"model {path}")
    return proto


def require_model(proto: onnx.ModelProto, *, origin: str) -> None:
    """Raise ModelError unless ``proto`` is a model at all: an IR version, a graph with outputs, and text as text."""
    if not _is_text(proto):
        raise ModelError(f"{origin}: not an ONNX model, or damaged (a name is no printable text)")
    if not proto.ir_version or not proto.HasField("graph") or not proto.graph.output:
        raise ModelError(f"{origin}: not an ONNX model (no IR version, or no graph with outputs)")


def tensors_of(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor stored in the model: initialisers and attributes, in subgraphs and functions too."""
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        yield from _node_tensors(function.node)


def expected_bytes(tensor: onnx.TensorProto) -> int:
    """Return how many bytes of raw data the type and dimensions of ``tensor`` ask for."""
    elements: int = math.prod(tensor.dims)
    kind = TensorProto.DataType.Name(tensor.data_type)
    if kind in _HALF_BYTE_TYPES:
        return -(-elements // 2)
    if kind in _QUARTER_BYTE_TYPES:
        return -(-elements // 4)
    return elements * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _is_text(message: Message) -> bool:
    """Return whether every string in ``message`` is UTF-8 and every name printable.

    Protobuf checks neither, and hands out bytes for what is no UTF-8. The ONNX IR specification asks for C identifiers
    as names, which few files keep to; a line break in one would break every message that quotes it.
    """
    if isinstance(message, TensorProto):  # its other fields may be large and hold no text that is used
        return _is_name(message.name)
    for field, value in message.ListFields():
        each = [value] if isinstance(value, str | bytes | Message) else value
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            if not all(_is_text(inner) for inner in each):
                return False
        elif field.type == FieldDescriptor.TYPE_STRING:
            free = field.name in _FREE_TEXT
            if not all(isinstance(text, str) if free else _is_name(text) for text in each):
                return False
    return True


def _is_name(text: str | bytes) -> bool:
    return isinstance(text, str) and not _CONTROL.search(text)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: object) -> Iterator[onnx.TensorProto]:
    for node in nodes:  # type: ignore[attr-defined] # a repeated field, which onnx's stubs give no common type
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for graph in subgraphs(node):
            yield from _graph_tensors(graph)


def _embed(tensor: onnx.TensorProto, folder: Path, *, origin: str) -> None:
    """Replace the reference to an external file by the bytes that it names."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    what = f"{origin}: tensor '{tensor.name}': external file '{location}'"
    target = (folder / location.replace("\0", "")).resolve()
    if not location or "\0" in location or Path(location).is_absolute() or not target.is_relative_to(folder.resolve()):
        raise ModelError(f"{what} lies outside the model's folder; move it beside the model")
    needed = expected_bytes(tensor)
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", needed))
    except ValueError:
        raise ModelError(f"{what}: offset and length must be integers") from None
    if length != needed or offset < 0:
        raise ModelError(f"{what}: {needed} bytes expected for its type and shape, {length} declared")
    try:
        with target.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(needed)
    except FileNotFoundError:
        raise ModelError(f"{what} is missing; put it into {folder.resolve()}") from None
    except OSError as error:
        raise ModelError(f"{what} cannot be read ({error.strerror})") from None
    if len(data) != needed:
        raise ModelError(f"{what} is truncated: {needed} bytes expected at offset {offset}, {len(data)} found")
    tensor.raw_data = data
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
