"""The open deep-learning API: one interface to every device, one file for each backend."""

from siniantrust.odla._ahead import AheadOfTime, Artifact, Build, export_part, load_artifact
from siniantrust.odla._device import Arrays, Device, DeviceInfo, DeviceSpec, Executable, Unsupported
from siniantrust.odla._memory import MemoryMeter, MemoryUse, memory_use
from siniantrust.odla._open_part import CheckedExecutable, open_part
from siniantrust.odla._profile import NodeProfile, Profiler, profile
from siniantrust.odla._registry import available_backends, list_devices, open_device

__all__ = [
    "AheadOfTime",
    "Arrays",
    "Artifact",
    "Build",
    "CheckedExecutable",
    "Device",
    "DeviceInfo",
    "DeviceSpec",
    "Executable",
    "MemoryMeter",
    "MemoryUse",
    "NodeProfile",
    "Profiler",
    "Unsupported",
    "available_backends",
    "export_part",
    "list_devices",
    "load_artifact",
    "memory_use",
    "open_device",
    "open_part",
    "profile",
]
