"""Inference messages in protobuf, read with suspicion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from siniantrust.errors import ProtocolError
from siniantrust.odla.oip import open_inference_pb2 as pb
from siniantrust.odla.oip._messages import InferAnswer, InferRequest, ModelMetadata, TensorMetadata
from siniantrust.odla.oip._tensors import DATATYPES, checked_shape, dtype_of, from_numbers, from_raw, to_raw

# FP16 has no list of its own in the protocol: it can only travel raw.
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


def parsed(message: Any, data: bytes) -> Any:
    """Parse ``data`` as a ``message`` class of protobuf. Raises ProtocolError for anything else."""
    from google.protobuf.message import DecodeError

    try:
        return message.FromString(data)
    except (DecodeError, UnicodeDecodeError):
        raise ProtocolError(f"{len(data)} bytes do not parse as a {message.DESCRIPTOR.name}") from None


def serialised(message: Any) -> bytes:
    """Return a protobuf message's bytes."""
    data: bytes = message.SerializeToString()
    return data


def encode_request(model: str, version: str, request: InferRequest) -> bytes:
    """Write a request with raw tensors."""
    message = pb.ModelInferRequest(model_name=model, model_version=version, id=request.id)
    for name, array in request.inputs.items():
        message.inputs.add(name=name, datatype=DATATYPES[array.dtype.name], shape=array.shape)
        message.raw_input_contents.append(to_raw(array))
    for name in request.outputs:
        message.outputs.add(name=name)
    return serialised(message)


def decode_request(message: Any) -> InferRequest:
    """Read a ``ModelInferRequest``. The answer is raw if the request was."""
    inputs = _tensors(message.inputs, message.raw_input_contents)
    return InferRequest(
        inputs=inputs,
        outputs={wanted.name: True for wanted in message.outputs},
        binary=bool(message.raw_input_contents) or not inputs,
        id=message.id,
    )


def encode_answer(answer: InferAnswer, *, id_: str) -> bytes:
    """Write an answer with raw tensors."""
    message = pb.ModelInferResponse(model_name=answer.model, model_version=answer.version, id=id_)
    for name, array in answer.outputs.items():
        message.outputs.add(name=name, datatype=DATATYPES[array.dtype.name], shape=array.shape)
        message.raw_output_contents.append(to_raw(array))
    return serialised(message)


def decode_answer(data: bytes) -> InferAnswer:
    """Read a ``ModelInferResponse`` from its bytes."""
    message = parsed(pb.ModelInferResponse, data)
    outputs = _tensors(message.outputs, message.raw_output_contents)
    return InferAnswer(model=message.model_name, version=message.model_version, outputs=outputs)


def encode_metadata(metadata: ModelMetadata) -> bytes:
    """Write a model's metadata."""
    message = pb.ModelMetadataResponse(name=metadata.name, versions=list(metadata.versions), platform=metadata.platform)
    for target, tensors in ((message.inputs, metadata.inputs), (message.outputs, metadata.outputs)):
        for tensor in tensors:
            target.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    return serialised(message)


def decode_metadata(data: bytes) -> ModelMetadata:
    """Read a ``ModelMetadataResponse`` from its bytes."""
    message = parsed(pb.ModelMetadataResponse, data)

    def tensors(entries: Sequence[Any]) -> tuple[TensorMetadata, ...]:
        return tuple(TensorMetadata(entry.name, entry.datatype, tuple(entry.shape)) for entry in entries)

    return ModelMetadata(
        name=message.name,
        versions=tuple(message.versions),
        platform=message.platform,
        inputs=tensors(message.inputs),
        outputs=tensors(message.outputs),
    )


def _tensors(entries: Sequence[Any], raws: Sequence[bytes]) -> Mapping[str, np.ndarray]:
    if raws and len(raws) != len(entries):
        raise ProtocolError(f"{len(raws)} raw contents stand beside {len(entries)} tensors; one for each is expected")
    arrays: dict[str, np.ndarray] = {}
    for index, entry in enumerate(entries):
        if entry.name in arrays:
            raise ProtocolError(f"tensor {entry.name!r} stands twice in the message")
        dtype = dtype_of(entry.datatype, tensor=entry.name)
        shape = checked_shape(tuple(entry.shape), tensor=entry.name)
        if raws:
            # MLServer sends an empty one beside raw contents.
            if entry.contents.ListFields():
                raise ProtocolError(f"tensor {entry.name!r} has both raw and typed contents")
            arrays[entry.name] = from_raw(raws[index], tensor=entry.name, dtype=dtype, shape=shape)
        else:
            data = _typed(entry)
            arrays[entry.name] = from_numbers(data, tensor=entry.name, dtype=dtype, shape=shape)
    return arrays


def _typed(entry: Any) -> np.ndarray | list[bool]:
    wanted = _CONTENTS.get(entry.datatype)
    if wanted is None:
        raise ProtocolError(f"tensor {entry.name!r}: {entry.datatype} can only travel as raw contents")
    for descriptor, _ in entry.contents.ListFields():
        if descriptor.name != wanted:
            raise ProtocolError(f"tensor {entry.name!r}: {entry.datatype} belongs in {wanted}, found {descriptor.name}")
    values = getattr(entry.contents, wanted)
    if wanted == "uint64_contents":
        return np.array(values, dtype=np.uint64)
    return np.array(values)
