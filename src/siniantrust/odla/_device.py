"""The device interface: what every backend answers, so that capability is asked and never assumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from siniantrust.graph import Part, Tensor

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """Which device to open. ``options`` belong to the backend (for example ``provider``, ``threads``, ``url``)."""

    name: str
    backend: str = "onnxruntime"
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What a device says of itself. ``identity`` changes whenever a cached profile would no longer hold."""

    name: str
    backend: str
    description: str
    identity: str
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Unsupported:
    """One node that a device cannot run, and why."""

    node: str
    op_type: str
    reason: str


@runtime_checkable
class Executable(Protocol):
    """A part that a device is ready to run."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Run once. Raises DataError for inputs that do not fit, DeviceLostError if the device is gone."""

    def close(self) -> None:
        """Free what it holds; calling it again does nothing."""


@runtime_checkable
class Device(Protocol):
    """An accelerator or a processor that runs parts."""

    spec: DeviceSpec

    def info(self) -> DeviceInfo:
        """Describe the device."""

    def supports(self, part: Part) -> list[Unsupported]:
        """Return the nodes of ``part`` that this device cannot run; empty means that it can run the part."""

    def compile(self, part: Part) -> Executable:
        """Prepare ``part``. Raises DeviceError rather than falling back to another device."""

    def close(self) -> None:
        """Free the device; calling it again does nothing."""


@dataclass(frozen=True, slots=True)
class HeldModel:
    """The names of what a model at a server takes and gives."""

    inputs: frozenset[str]
    outputs: frozenset[str]


@runtime_checkable
class ModelHolder(Device, Protocol):
    """A device that runs what it holds already; parts cannot be brought there."""

    def held(self, name: str) -> HeldModel | None:
        """Ask for the model that the device's options name, else ``name``; None if it does not have it."""

    def calibration(self) -> Device:
        """Return the same device for the small parts by which its speed is measured."""
