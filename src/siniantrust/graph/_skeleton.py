"""A model without its weights: small enough to check, infer on and hash, whatever the model's size."""

from __future__ import annotations

import hashlib
import math

import onnx
from onnx import helper

# Shapes, axes, pads and scales are small initialisers that shape inference must read; weights it must not.
_KEEP_ELEMENTS = 1024


def structure(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of ``proto`` without the initialisers of its main graph; everything else is kept."""
    copy = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name != "graph":
            _copy_field(copy, field.name, value)
    for field, value in proto.graph.ListFields():
        if field.name != "initializer":
            _copy_field(copy.graph, field.name, value)
    return copy


def skeleton(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of ``proto`` in which every large initialiser is a graph input of the same type and shape."""
    copy = structure(proto)
    declared = {value.name for value in proto.graph.input}
    for tensor in proto.graph.initializer:
        if math.prod(tensor.dims) <= _KEEP_ELEMENTS:
            copy.graph.initializer.append(tensor)
        elif tensor.name not in declared:
            copy.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return copy


def digest(proto: onnx.ModelProto) -> str:
    """Return the SHA-256 of a deterministic serialisation, in hexadecimal.

    Initialisers are hashed one by one after the structure, so that models beyond protobuf's 2 GiB can be hashed too.
    """
    sha = hashlib.sha256(structure(proto).SerializeToString(deterministic=True))
    for tensor in proto.graph.initializer:
        data = tensor.SerializeToString(deterministic=True)
        sha.update(len(data).to_bytes(8, "little"))
        sha.update(data)
    return sha.hexdigest()


def _copy_field(target: object, name: str, value: object) -> None:
    """Copy one set field of a protobuf message: repeated, message or scalar."""
    current = getattr(target, name)
    if hasattr(current, "MergeFrom"):
        current.MergeFrom(value)
    else:
        setattr(target, name, value)
