"""The open deep-learning API: one interface to every device, one file for each backend."""

from siniantrust.odla._device import Arrays, Device, DeviceInfo, DeviceSpec, Executable, Unsupported
from siniantrust.odla._profile import NodeProfile, Profiler, profile
from siniantrust.odla._registry import available_backends, list_devices, open_device

__all__ = [
    "Arrays",
    "Device",
    "DeviceInfo",
    "DeviceSpec",
    "Executable",
    "NodeProfile",
    "Profiler",
    "Unsupported",
    "available_backends",
    "list_devices",
    "open_device",
    "profile",
]
