"""The open deep-learning API: one interface to every device, one file for each backend."""

from siniantrust.odla._ahead import AheadOfTime, Artifact, Build, export_part, load_artifact
from siniantrust.odla._calibration import compute_part, link_part
from siniantrust.odla._call_cost import CallCost, CallMeter, least_seconds, measure_call, measure_speed, median_seconds
from siniantrust.odla._device import (
    Arrays,
    Device,
    DeviceInfo,
    DeviceSpec,
    Executable,
    HeldModel,
    ModelHolder,
    Unsupported,
)
from siniantrust.odla._least_squares import fit_non_negative
from siniantrust.odla._memory import MemoryMeter, MemoryUse, memory_use
from siniantrust.odla._open_part import CheckedExecutable, open_part
from siniantrust.odla._profile import NodeProfile, Profiler, profile
from siniantrust.odla._ray_cluster import join as join_ray_cluster
from siniantrust.odla._registry import available_backends, list_devices, open_device

__all__ = [
    "AheadOfTime",
    "Arrays",
    "Artifact",
    "Build",
    "CallCost",
    "CallMeter",
    "CheckedExecutable",
    "Device",
    "DeviceInfo",
    "DeviceSpec",
    "Executable",
    "HeldModel",
    "MemoryMeter",
    "MemoryUse",
    "ModelHolder",
    "NodeProfile",
    "Profiler",
    "Unsupported",
    "available_backends",
    "compute_part",
    "export_part",
    "fit_non_negative",
    "join_ray_cluster",
    "least_seconds",
    "link_part",
    "list_devices",
    "load_artifact",
    "measure_call",
    "measure_speed",
    "median_seconds",
    "memory_use",
    "open_device",
    "open_part",
    "profile",
]
