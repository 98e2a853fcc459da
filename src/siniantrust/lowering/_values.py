"""The vocabulary of lowering: values, nodes as operators see them, steps of C, and the refusal of a node."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# What ``enum integer`` of kernels.h calls a dtype.
KINDS = {"uint8": "U8", "int8": "S8", "int32": "S32", "int64": "S64"}


class RefusedError(Exception):
    """A node cannot be lowered; the message says why, the caller says which node."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of known dtype (numpy's name) and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes of all elements."""
        return self.elements * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Operation:
    """A node with what is known of its operands; an input that is left out is None.

    ``known`` holds the numbers of integer operands that are constants and not sealed, by their names.
    """

    op_type: str
    attributes: Mapping[str, Any]
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]
    known: Mapping[str, np.ndarray]

    @property
    def output(self) -> Value:
        """The only output.

        Raises:
            RefusedError: if the node has more.
        """
        if len(self.outputs) != 1:
            raise RefusedError(f"only its first output can be lowered, and '{self.outputs[1].name}' is used")
        return self.outputs[0]

    def operand(self, position: int) -> Value:
        """Return an input that must be there.

        Raises:
            RefusedError: if it is not.
        """
        found = self.optional(position)
        if found is None:
            raise RefusedError(f"input {position} is missing")
        return found

    def optional(self, position: int) -> Value | None:
        """Return an input, or None where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def integers(self, position: int) -> np.ndarray | None:
        """Return the numbers of an integer operand, or None where they are not known."""
        return self.known.get(self.operand(position).name)

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute's value."""
        return self.attributes.get(name, default)


@dataclass(frozen=True, slots=True)
class Quantised:
    """The argument ``struct quantised``: integers with their scale and zero point, by channel where ``step`` is 1.

    What a kernel does not read is None.
    """

    data: Value | None
    dtype: str
    scale: Value | None
    zero: Value | None
    step: int


Argument = Value | Quantised | int | str | None


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a kernel.

    Attributes:
        kernel: the C function.
        arguments: values become pointers, None a null pointer, numbers and text are taken as they are.
        output: the value that it writes.
        over: inputs whose place the output may take, since each element depends on the same element there only.
        view_of: the input whose very bytes the output is; the call is made only where they cannot share a place.
    """

    kernel: str
    arguments: tuple[Argument, ...]
    output: Value
    over: tuple[Value, ...] = ()
    view_of: Value | None = None

    @property
    def reads(self) -> tuple[Value, ...]:
        """The values that it reads."""
        found: list[Value] = []
        for argument in self.arguments:
            entries = (argument.data, argument.scale, argument.zero) if isinstance(argument, Quantised) else (argument,)
            found += [entry for entry in entries if isinstance(entry, Value) and entry != self.output]
        return tuple(found)


def require_dtype(value: Value, *dtypes: str) -> None:
    """Refuse a value of another dtype.

    Raises:
        RefusedError: naming it.
    """
    if value.dtype not in dtypes:
        raise RefusedError(f"'{value.name}' is {value.dtype}, only {' or '.join(dtypes)} can be lowered")


def c_float(value: float) -> str:
    """Return a number as an exact C constant of type float.

    Raises:
        RefusedError: if it is not finite.
    """
    single = float(np.float32(value))
    if not math.isfinite(single):
        raise RefusedError(f"an attribute is {single}, only finite numbers can be lowered")
    return f"{single.hex()}f"
