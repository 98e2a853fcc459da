"""Is the model at a server the part that it should be? Asked before anything private is sent there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import EncodeError

from siniantrust._files import sha256_bytes
from siniantrust.errors import DataError, DeviceError, ProtocolError
from siniantrust.graph import Part, Tensor
from siniantrust.odla._compare import difference
from siniantrust.odla._device import DeviceSpec
from siniantrust.odla._registry import open_device
from siniantrust.odla._signature import Port, Signature
from siniantrust.odla.oip._messages import InferAnswer, ModelMetadata, TensorMetadata
from siniantrust.odla.oip._tensors import DATATYPES

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SEED = 20


@dataclass(frozen=True)
class Trial:
    """One seeded random input, and what the part makes of it here."""

    inputs: Mapping[str, np.ndarray]
    expected: Mapping[str, np.ndarray]


def local_trial(part: Part) -> Trial:
    """Draw an input for ``part`` and run it by ONNX Runtime on one core here.

    Floating-point inputs are standard normal; integers and booleans are 0 or 1, which also does where they are indices.

    Raises:
        DeviceError: if the part does not run here on such an input.
    """
    generator = np.random.default_rng(_SEED)
    inputs = {tensor.name: _random(tensor, generator) for tensor in part.inputs}
    device = open_device(DeviceSpec(name="verification", options={"threads": 1}))
    try:
        executable = device.compile(part)
        try:
            return Trial(inputs=inputs, expected=executable.run(inputs))
        finally:
            executable.close()
    except (DataError, DeviceError) as error:
        raise DeviceError(
            f"part {part.name!r} cannot be compared with the server's model, since it does not run here: {error}; "
            "the option verify=false goes without"
        ) from error
    finally:
        device.close()


def check_metadata(metadata: ModelMetadata, signature: Signature, *, where: str) -> None:
    """Compare what the server says of its model with the part's ports.

    Every input has to be there and no other; outputs beyond the part's are left unused. A dimension that is free on
    either side (the batch) is not compared.

    Raises:
        DeviceError: naming the first difference.
    """
    offered = {tensor.name: tensor for tensor in metadata.inputs}
    for name in offered:
        if name not in {port.name for port in signature.inputs}:
            raise DeviceError(f"{where} takes an input {name!r} that the part does not have")
    for kind, ports, tensors in (
        ("input", signature.inputs, offered),
        ("output", signature.outputs, {tensor.name: tensor for tensor in metadata.outputs}),
    ):
        for port in ports:
            if port.name not in tensors:
                raise DeviceError(f"{where} has no {kind} {port.name!r}; it has {sorted(tensors)}")
            if not _fits(port, tensors[port.name]):
                found = tensors[port.name]
                raise DeviceError(
                    f"{where}: {kind} {port.describe()} is expected, found {found.datatype}{list(found.shape)}"
                )


def check_digest(metadata: ModelMetadata, part: Part, *, where: str) -> None:
    """Compare a version that looks like a SHA-256 with the part's own.

    Raises:
        DeviceError: if they differ. Equal models may be serialised differently, so that this is asked only where the
            outputs are not compared.
    """
    hashes = [version for version in metadata.versions if _SHA256.fullmatch(version)]
    if not hashes:
        return
    try:
        digest = sha256_bytes(part.proto.SerializeToString())
    except EncodeError:
        raise DeviceError(f"part {part.name!r} is too large to be hashed; use verify=true") from None
    if digest not in hashes:
        raise DeviceError(
            f"{where} has version {hashes[0]}, the part is {digest}; verify=true compares what they compute instead"
        )


def accepted(
    answer: InferAnswer, signature: Signature, extents: Mapping[str, int], *, where: str
) -> dict[str, np.ndarray]:
    """Check an answer's tensors against the part's outputs and return them in the part's order.

    Args:
        answer: What the server sent.
        signature: The part's ports.
        extents: The extent that each named free dimension has in this request.
        where: The server and its model, for messages.

    Raises:
        ProtocolError: for a missing or extra output, another dtype, or another shape.
    """
    problem = signature.output_problem(answer.outputs, extents)
    if problem is not None:
        raise ProtocolError(f"{where} sent {problem}")
    return {port.name: answer.outputs[port.name] for port in signature.outputs}


def check_trial(trial: Trial, found: Mapping[str, np.ndarray], *, where: str) -> None:
    """Compare what the server computed with what the part computed here.

    Raises:
        DeviceError: if they differ, which means that the server has another model, or a stale one.
    """
    problem = difference(trial.expected, found)
    if problem is not None:
        raise DeviceError(f"{where} does not compute what the part computes: {problem}; is another model served there?")


def _fits(port: Port, tensor: TensorMetadata) -> bool:
    if tensor.datatype != DATATYPES[port.dtype] or len(tensor.shape) != len(port.dimensions):
        return False
    return all(
        not isinstance(ours, int) or theirs < 0 or ours == theirs
        for ours, theirs in zip(port.dimensions, tensor.shape, strict=True)
    )


def _random(tensor: Tensor, generator: np.random.Generator) -> np.ndarray:
    dtype = np.dtype(tensor.dtype)
    if dtype.kind == "f":
        return generator.standard_normal(tensor.shape).astype(dtype)
    return generator.integers(0, 2, tensor.shape).astype(dtype)
