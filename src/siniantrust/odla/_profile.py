"""Per-node cost of a part on a device, for those devices that can tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from siniantrust.errors import DeviceError
from siniantrust.graph import Part
from siniantrust.odla._device import Arrays, Device


@dataclass(frozen=True, slots=True)
class NodeProfile:
    """Seconds per node.

    ``latency_s`` has every node of the part; one that the runtime folded away or fused into another has 0, and its
    cost stands at the node that took it in. They are seconds under the profiler, which adds its own share to each: only
    their ratios may be taken for those of a bare run. ``basis`` says in words how they were measured.
    """

    latency_s: Mapping[str, float]
    basis: str


@runtime_checkable
class Profiler(Protocol):
    """A device that can tell how long each node takes."""

    def profile(self, part: Part, inputs: Arrays, *, repeats: int) -> NodeProfile:
        """Run ``part`` on ``inputs`` ``repeats`` times under the profiler."""


def profile(device: Device, part: Part, inputs: Arrays, *, repeats: int = 10) -> NodeProfile:
    """Measure how long each node of ``part`` takes on ``device``.

    Args:
        device: A device that implements ``Profiler``.
        part: The part.
        inputs: Arrays to run it on; their batch size is what the seconds are for.
        repeats: Runs to take the median over, after one to warm up.

    Raises:
        DeviceError: if the device cannot tell, or does not support the part.
        DataError: if the inputs do not fit.
    """
    if not isinstance(device, Profiler):
        raise DeviceError(
            f"device {device.spec.name!r}: backend {device.spec.backend!r} cannot say what each node costs"
        )
    if repeats < 1:
        raise DeviceError(f"device {device.spec.name!r}: a profile needs at least 1 repeat, found {repeats}")
    return device.profile(part, inputs, repeats=repeats)
