"""Compiling the untrusted parts ahead of time, for the devices that a plan puts them on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from siniantrust.errors import DeviceError
from siniantrust.graph import Part
from siniantrust.odla import Artifact, DeviceSpec, export_part, open_device
from siniantrust.planner import Policy
from siniantrust.runtime._stages import device_spec


def exporter(policy: Policy, specs: Sequence[DeviceSpec] = ()) -> Callable[[Part, str], list[Artifact]]:
    """Return what ``bundle.build_bundle`` calls to compile a part for a device of the policy.

    Args:
        policy: says how to open its devices.
        specs: other ways to open them, by name, several of one name for several architectures; if there are any, those
            of the policy are not used.

    Raises:
        DeviceError: if ``specs`` names a device that the policy does not have.
    """
    for spec in specs:
        device_spec(policy, spec.name, {spec.name: spec})

    def export(part: Part, device: str) -> list[Artifact]:
        chosen = [spec for spec in specs if spec.name == device] if specs else [device_spec(policy, device, {})]
        found = []
        for spec in chosen:
            opened = open_device(spec)
            try:
                found.append(export_part(opened, part))
            finally:
                opened.close()
        if not found:
            raise DeviceError(f"device {device!r}, part {part.name!r}: nothing says what to compile it for")
        return found

    return export
