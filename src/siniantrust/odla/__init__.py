"""The open deep-learning API: one interface to every device, one file for each backend."""

from siniantrust.odla._device import Arrays, Device, DeviceInfo, DeviceSpec, Executable, Unsupported

__all__ = ["Arrays", "Device", "DeviceInfo", "DeviceSpec", "Executable", "Unsupported"]
