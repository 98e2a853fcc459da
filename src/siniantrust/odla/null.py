"""The ``null`` backend: every part runs, in no time, on shapes alone, and no value can be read back.

For planning (would these parts fit together, how much crosses?) and for tests that must not look at values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from siniantrust.errors import DeviceError
from siniantrust.graph import Part, Tensor
from siniantrust.odla._by_node import unsupported_ports
from siniantrust.odla._device import Arrays, DeviceInfo, DeviceSpec, Unsupported
from siniantrust.odla._memory import MemoryUse, counted_memory
from siniantrust.odla._options import read_options
from siniantrust.odla._signature import Port, signature_of
from siniantrust.odla._unreadable import Unreadable

OPTIONS: Mapping[str, str] = {}


def open_device(spec: DeviceSpec) -> NullDevice:
    """Open a null device. Raises DeviceError for any option: it has none."""
    read_options(spec, OPTIONS)
    return NullDevice(spec)


class NullDevice:
    """A device that computes nothing."""

    def __init__(self, spec: DeviceSpec) -> None:
        self.spec = spec

    def info(self) -> DeviceInfo:
        """Describe the device."""
        return DeviceInfo(self.spec.name, self.spec.backend, "shapes only, computes nothing", "null", memory_bytes=None)

    def supports(self, part: Part) -> list[Unsupported]:
        """Refuse a part whose output sizes are known only from values."""
        if refused := unsupported_ports(part):
            return refused
        makers = {name: node for node in part.proto.graph.node for name in node.output}
        known = {d for port in signature_of(part).inputs for d in port.dimensions if isinstance(d, str)}
        return [
            Unsupported(
                node=makers[port.name].name if port.name in makers else "",
                op_type=makers[port.name].op_type if port.name in makers else "",
                reason=f"the size of {port.describe()} depends on values",
            )
            for port, tensor in zip(signature_of(part).outputs, part.outputs, strict=True)
            if _shape(port, tensor, dict.fromkeys(known, 1), part.batch_symbol) is None
        ]

    def compile(self, part: Part) -> NullExecutable:
        """Take ``part``. Raises DeviceError for what ``supports`` refuses."""
        if refused := self.supports(part):
            raise DeviceError(f"part {part.name!r}: {refused[0].reason}")
        return NullExecutable(part)

    def close(self) -> None:
        """Do nothing."""


class NullExecutable:
    """A part that runs on shapes."""

    def __init__(self, part: Part) -> None:
        self.inputs: tuple[Tensor, ...] = part.inputs
        self.outputs: tuple[Tensor, ...] = part.outputs
        self._part = part
        self._signature = signature_of(part)
        self._is_closed = False

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Return outputs that have dtype and shape; outputs of other null parts may be given as inputs.

        Raises:
            DataError: for inputs that do not fit.
            DeviceError: after ``close``; and later, by any attempt to read an output's values.
        """
        part = self._part
        if self._is_closed:
            raise DeviceError(f"part {part.name!r} was closed")
        extents = self._signature.check_inputs(inputs)
        outputs = {}
        for port, tensor in zip(self._signature.outputs, part.outputs, strict=True):
            shape = _shape(port, tensor, extents, part.batch_symbol)
            assert shape is not None  # noqa: S101 - compile refused the part otherwise
            outputs[port.name] = Unreadable(port.name, port.dtype, shape, where=f"part {part.name!r} on null")
        return cast("dict[str, np.ndarray]", outputs)

    def memory(self) -> MemoryUse:
        """Return what the part would take elsewhere; here it takes nothing."""
        return counted_memory(self._part, runtime="the null device")

    def close(self) -> None:
        """Refuse further runs."""
        self._is_closed = True


def _shape(port: Port, tensor: Tensor, extents: Mapping[str, int], symbol: str | None) -> tuple[int, ...] | None:
    """Return an output's shape, or None if it depends on values."""
    shape = []
    for axis, dimension in enumerate(port.dimensions):
        if isinstance(dimension, str) and dimension in extents:
            shape.append(extents[dimension])
        elif isinstance(dimension, int):
            shape.append(dimension)
        elif axis == tensor.batch_axis and symbol in extents and tensor.shape[axis]:
            # The batch axis of a value may be a multiple of the batch.
            shape.append(tensor.shape[axis] * extents[cast("str", symbol)])
        else:
            return None
    return tuple(shape)
