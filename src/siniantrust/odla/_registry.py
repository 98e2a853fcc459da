"""Finding backends: entry points of the group ``siniantrust.odla``, imported only when asked for."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import cast

from siniantrust.errors import DeviceError, SinianError
from siniantrust.odla._device import Device, DeviceInfo, DeviceSpec
from siniantrust.odla._text import one_line

GROUP = "siniantrust.odla"
_log = logging.getLogger(__name__)


def open_device(spec: DeviceSpec) -> Device:
    """Open the device that ``spec`` names, importing its backend now and no other.

    Raises:
        DeviceError: for an unknown backend (the message lists the known), one that does not load, an unknown option,
            or a device that is not there.
        MissingExtraError: if the backend's library is not installed.
    """
    backends = _backends()
    if spec.backend not in backends:
        known = ", ".join(sorted(backends)) or "none"
        raise DeviceError(f"device {spec.name!r}: there is no backend {spec.backend!r}; known are {known}")
    entry = backends[spec.backend]
    _check_ready(entry)
    return _factory(entry)(spec)


def available_backends() -> dict[str, str]:
    """Return, for each backend, ``"ready"`` or why it cannot be used (mostly the ``pip install`` that it lacks)."""
    verdicts = {}
    for name, entry in sorted(_backends().items()):
        try:
            _factory(entry)
            _check_ready(entry)
        except SinianError as reason:
            verdicts[name] = str(reason)
        else:
            verdicts[name] = "ready"
    return verdicts


def list_devices() -> list[DeviceInfo]:
    """Describe the devices found on this machine: those of every ready backend that can enumerate them.

    A backend does so by a function ``devices() -> list[DeviceInfo]`` in its module; one that fails there is left out
    with a warning in the log.
    """
    found: list[DeviceInfo] = []
    backends = _backends()
    for name, verdict in available_backends().items():
        if verdict != "ready":
            continue
        enumerate_devices = getattr(importlib.import_module(backends[name].module), "devices", None)
        if enumerate_devices is None:
            continue
        try:
            found.extend(enumerate_devices())
        except Exception as error:  # noqa: BLE001 - a plug-in may fail in any way, and must not take the others with it
            _log.warning("backend %r cannot list its devices: %s", name, one_line(error))
    return found


def _backends() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in _registered(tuple(sys.path)):
        known = found.setdefault(entry.name, entry)
        if known.value != entry.value:
            raise DeviceError(
                f"backend {entry.name!r} is claimed twice, by {known.value} and {entry.value}; uninstall one of them"
            )
    return found


@lru_cache(maxsize=1)
def _registered(path: tuple[str, ...]) -> EntryPoints:  # noqa: ARG001 - a backend comes with a distribution on it
    """Return what distributions register. Kept while the path is the same: to read them all takes some 20 ms."""
    return entry_points(group=GROUP)


def _factory(entry: EntryPoint) -> Callable[[DeviceSpec], Device]:
    try:
        return cast("Callable[[DeviceSpec], Device]", entry.load())
    except SinianError:
        raise
    except Exception as error:  # a plug-in may fail in any way, and must not take the others with it
        raise DeviceError(
            f"backend {entry.name!r} does not load: {entry.value}: {type(error).__name__}: {one_line(error)}"
        ) from error


def _check_ready(entry: EntryPoint) -> None:
    """Let the backend say what it lacks, by a function ``check_ready()`` in its module that raises."""
    try:
        check = getattr(importlib.import_module(entry.module), "check_ready", None)
    except Exception:  # noqa: BLE001 - _factory reports what is wrong with the module
        return
    if check is None:
        return
    try:
        check()
    except SinianError:
        raise
    except Exception as error:  # a library that is there but broken, or too old
        raise DeviceError(f"backend {entry.name!r} is not usable: {type(error).__name__}: {one_line(error)}") from error
