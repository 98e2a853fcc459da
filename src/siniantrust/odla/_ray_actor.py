"""What the ``ray`` backend runs on the cluster: another backend's device inside an actor."""

from __future__ import annotations

import itertools
import os
import socket
from dataclasses import dataclass

import numpy as np

from siniantrust import __version__
from siniantrust._extras import require
from siniantrust.errors import DeviceError
from siniantrust.graph import Part
from siniantrust.odla._device import Arrays, Device, DeviceInfo, DeviceSpec, Executable, Unsupported
from siniantrust.odla._memory import MemoryUse, memory_use
from siniantrust.odla._registry import open_device


@dataclass(frozen=True, slots=True)
class Opened:
    """What an actor says of the device that it opened, and of itself."""

    info: DeviceInfo
    node_id: str
    process_id: int


class DeviceActor:
    """One device and the parts on it. Its methods run one after the other, in the order of the calls.

    It is a plain class, which becomes an actor where a device is opened.
    """

    def __init__(self) -> None:
        self._opened: Device | None = None
        self._parts: dict[int, Executable] = {}
        self._numbers = itertools.count()

    def open(self, spec: DeviceSpec, version: str) -> Opened:
        """Open the device, in a method rather than at the start, so that an error arrives as what it is.

        Raises:
            DeviceError: if the device is not there, or this node has another version of SinianTrust than the caller.
        """
        if version != __version__:
            raise DeviceError(
                f"the node {socket.gethostname()} has siniantrust {__version__}, this process {version}; "
                "install one version everywhere"
            )
        self._opened = open_device(spec)
        return self.opened()

    def opened(self) -> Opened:
        """Describe the device, and where it is."""
        node_id = require("ray", extra="ray").get_runtime_context().get_node_id()
        return Opened(self._device().info(), node_id, os.getpid())

    def supports(self, part: Part) -> list[Unsupported]:
        """Ask the device."""
        return self._device().supports(part)

    def compile(self, part: Part) -> int:
        """Prepare ``part`` and return the number by which it is known here."""
        executable = self._device().compile(part)
        number = next(self._numbers)
        self._parts[number] = executable
        return number

    def run(self, number: int, inputs: Arrays) -> dict[str, np.ndarray]:
        """Run a part. The arrays lie in the node's object store and cannot be written to."""
        return self._parts[number].run(inputs)

    def memory(self, number: int) -> MemoryUse:
        """Return what memory a part takes."""
        return memory_use(self._parts[number])

    def free(self, number: int) -> None:
        """Free a part."""
        self._parts.pop(number).close()

    def _device(self) -> Device:
        if self._opened is None:
            raise DeviceError("it was not opened")
        return self._opened
