"""What a part takes and gives: names, dtypes and shapes with their free dimensions, and the check of real arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from siniantrust.errors import DataError, DeviceError
from siniantrust.graph import Part, Tensor
from siniantrust.odla._device import Arrays
from siniantrust.odla._unreadable import Unreadable

# What can cross a device's edge: plain numpy dtypes that the runtimes and the wire formats share.
DTYPES = frozenset(
    {"bool", "float16", "float32", "float64"} | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)

Dimension = int | str | None
"""A fixed extent, the name of a free one, or None for a free one without a name."""


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output of a part, with the dimensions that may vary."""

    name: str
    dtype: str
    dimensions: tuple[Dimension, ...]

    def describe(self) -> str:
        """Say the port in a message: ``x float32[N,3,16,16]``."""
        return f"{self.name} {self.dtype}[{','.join('?' if d is None else str(d) for d in self.dimensions)}]"


@dataclass(frozen=True, slots=True)
class Signature:
    """The ports of a part, in the order of its inputs and outputs."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def check_inputs(self, arrays: Arrays) -> dict[str, int]:
        """Check arrays against the inputs and return the extent that each named free dimension took.

        NaN and infinities pass: whether they make sense is the model's affair.

        Raises:
            DataError: for a missing or extra name, another dtype, or another shape.
        """
        wanted = [port.name for port in self.inputs]
        if missing := [name for name in wanted if name not in arrays]:
            raise DataError(f"input {missing[0]!r} is missing; the part takes {_listed(wanted)}")
        if extra := [name for name in arrays if name not in wanted]:
            raise DataError(f"input {extra[0]!r} is not one of the part's; it takes {_listed(wanted)}")
        extents: dict[str, int] = {}
        for port in self.inputs:
            _check(port, arrays[port.name], extents)
        return extents

    def output_problem(self, arrays: Arrays, extents: Mapping[str, int]) -> str | None:
        """Say how arrays differ from the outputs in names, dtypes or shapes; None if they do not.

        Args:
            arrays: What a device returned, or anything with ``dtype`` and ``shape``.
            extents: The extent that each named free dimension has, as ``check_inputs`` returned it.
        """
        wanted = [port.name for port in self.outputs]
        if sorted(arrays) != sorted(wanted):
            return f"outputs {sorted(arrays)}, expected {sorted(wanted)}"
        for port in self.outputs:
            array = arrays[port.name]
            shape = [extents.get(d, -1) if isinstance(d, str) else -1 if d is None else d for d in port.dimensions]
            fits = len(shape) == len(array.shape) and all(
                wanted_extent in {-1, extent} for wanted_extent, extent in zip(shape, array.shape, strict=True)
            )
            if array.dtype.name != port.dtype or not fits:
                return f"output {port.name!r} as {array.dtype.name}{list(array.shape)}, expected {port.dtype}{shape}"
        return None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"


def _check(port: Port, array: np.ndarray, extents: dict[str, int]) -> None:
    if not isinstance(array, np.ndarray | Unreadable):
        raise DataError(f"input {port.name!r} must be a numpy array, found {type(array).__name__}")
    if array.dtype.name != port.dtype:
        raise DataError(f"input {port.name!r} must be {port.dtype}, found {array.dtype.name}")
    if len(array.shape) != len(port.dimensions):
        raise DataError(f"input {port.describe()} cannot take an array of shape {list(array.shape)}")
    for extent, dimension in zip(array.shape, port.dimensions, strict=True):
        if dimension is None:
            continue
        expected = dimension if isinstance(dimension, int) else extents.setdefault(dimension, extent)
        if extent != expected:
            raise DataError(
                f"input {port.describe()} cannot take an array of shape {list(array.shape)}: "
                f"{extent} stands where {expected} is expected"
            )


def signature_of(part: Part) -> Signature:
    """Read a part's ports: names and order from the part, free dimensions from its proto.

    Raises:
        DeviceError: for a dtype that does not pass between devices (strings, bfloat16, four-bit integers).
    """
    values = {value.name: value for value in (*part.proto.graph.input, *part.proto.graph.output)}
    return Signature(
        inputs=tuple(_port(part, tensor, values.get(tensor.name)) for tensor in part.inputs),
        outputs=tuple(_port(part, tensor, values.get(tensor.name)) for tensor in part.outputs),
    )


def _port(part: Part, tensor: Tensor, value: onnx.ValueInfoProto | None) -> Port:
    if value is None:
        raise DeviceError(f"part {part.name!r}: its graph has no input or output {tensor.name!r}")
    if tensor.dtype not in DTYPES:
        raise DeviceError(
            f"part {part.name!r}: {tensor.name!r} is {tensor.dtype}, which does not pass between devices; "
            f"cut elsewhere or cast it to one of {', '.join(sorted(DTYPES))}"
        )
    return Port(name=tensor.name, dtype=tensor.dtype, dimensions=_dimensions(tensor, value))


def _dimensions(tensor: Tensor, value: onnx.ValueInfoProto) -> tuple[Dimension, ...]:
    if not value.type.tensor_type.HasField("shape"):
        return tensor.shape
    return tuple(
        int(dimension.dim_value) if dimension.HasField("dim_value") else (dimension.dim_param or None)
        for dimension in value.type.tensor_type.shape.dim
    )
