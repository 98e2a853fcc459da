"""How much memory a part takes on a device, as far as its runtime lets one know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from siniantrust.errors import DeviceError
from siniantrust.graph import Part, Tensor, peak_bytes
from siniantrust.odla._device import Executable


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes on the device.

    Attributes:
        resident_bytes: held between runs; None if nobody knows.
        peak_bytes: the most that is held at once, the resident bytes included; None if nobody knows.
        basis: in words, who says so: a figure that was counted from the graph is no measurement.
    """

    resident_bytes: int | None
    peak_bytes: int | None
    basis: str


@runtime_checkable
class MemoryMeter(Protocol):
    """An executable that can tell what memory it takes."""

    def memory(self) -> MemoryUse:
        """Return the memory that it takes."""


def memory_use(executable: Executable) -> MemoryUse:
    """Return what memory ``executable`` takes.

    Raises:
        DeviceError: if it cannot tell.
    """
    if not isinstance(executable, MemoryMeter):
        raise DeviceError(f"{type(executable).__name__} cannot say what memory it takes")
    return executable.memory()


def counted_memory(part: Part, *, runtime: str) -> MemoryUse:
    """Count from the graph, for a runtime that does not tell: weights, and activations alive at once for one item."""
    weights = sum(Tensor(t.name, _dtype(t.data_type), tuple(t.dims)).size_bytes for t in part.proto.graph.initializer)
    return MemoryUse(
        resident_bytes=weights,
        peak_bytes=peak_bytes(part),
        basis=f"counted from the graph for one batch item, since {runtime} does not say: weights as stored, and the "
        "activations alive at once; its work space is not in it",
    )


def _dtype(data_type: int) -> str:
    from onnx import helper

    return helper.tensor_dtype_to_np_dtype(data_type).name
