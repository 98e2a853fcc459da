"""Measuring a cost profile: what every node costs on each device, and every way to a device and back."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from contextlib import closing

from siniantrust.errors import PlanError
from siniantrust.graph import CutSet, Model
from siniantrust.odla import Device, DeviceSpec, ModelHolder, open_device
from siniantrust.planner._costs import AffineCost, ComputeCost, CostProfile, DeviceProfile
from siniantrust.planner._device_profile import profile_device
from siniantrust.planner._pieces import Specimen
from siniantrust.planner._policy import Policy
from siniantrust.planner._profile_store import ProfileStore
from siniantrust.planner._server_profile import profile_server
from siniantrust.trust import CrossingCost, unsupported_nodes


def measure_costs(
    model: Model,
    cuts: CutSet,
    *,
    policy: Policy,
    devices: Mapping[str, Device],
    crossing: CrossingCost,
    seed: int,
    store: ProfileStore | None = None,
) -> CostProfile:
    """Measure what every node costs in the enclave's configuration and on each untrusted device, for one batch item.

    The enclave's nodes are measured in this process with as many threads, and scaled by what the enclave took for a
    small network. A server is measured every time, since its identity does not tell what runs there; other devices
    once, until they change. ``basis`` says of each figure how it was come by.

    Args:
        model: the model.
        cuts: its cuts, at some of which it is taken apart.
        policy: says with how many threads the enclave computes, and which devices there are.
        devices: an open device for each name in the policy.
        crossing: what a call into the enclave costs beyond the computation.
        seed: of the random inputs.
        store: keeps profiles for the next time; None keeps nothing.

    Raises:
        PlanError: if a device of the policy is missing from ``devices``.
        ModelError: if the enclave can run no part of a model with such inputs or outputs.
        DeviceLostError: if a server does not answer.
        DeviceError: if this machine cannot run the model.
    """
    missing = [device.name for device in policy.device if device.name not in devices]
    if missing:
        raise PlanError(f"costs: device '{missing[0]}' of the policy was not opened; found {sorted(devices)}")
    with closing(open_device(DeviceSpec("enclave", options={"threads": policy.enclave.threads}))) as here:
        specimen = Specimen(model, cuts, seed, here)
        known = _Known(model, store or ProfileStore(None))
        trusted = known.get(here, lambda: profile_device(here, specimen))
        here_s = trusted.compute.latency_s
        found = {entry.name: _profile(devices[entry.name], specimen, known, here_s) for entry in policy.device}
        machine = here.info().description
    return CostProfile(
        model_sha256=model.sha256,
        trusted=_inside(trusted.compute, crossing, unsupported_nodes(policy.enclave.provider, specimen.whole)),
        devices={name: profile.compute for name, profile in found.items()},
        crossing=_crossing(trusted.call, crossing),
        transfers={name: profile.call for name, profile in found.items()},
        machine=f"{machine}, {platform.system()} {platform.machine()}",
    )


class _Known:
    """Profiles that were measured already: a device that is another one under a new name is not measured again."""

    def __init__(self, model: Model, store: ProfileStore) -> None:
        self._model = model
        self._store = store
        self._found: dict[str, DeviceProfile] = {}

    def get(self, device: Device, measure: Callable[[], DeviceProfile]) -> DeviceProfile:
        """Return the profile of ``device``, measuring it if none is known that holds."""
        info = device.info()
        if info.identity not in self._found:
            found, note = self._store.get(self._model.sha256, device.spec, info)
            if found is None or found.compute.latency_s.keys() != {node.name for node in self._model.nodes}:
                found = measure()
                self._store.put(self._model.sha256, device.spec, info, found)
                found = found.noted(note) if note else found
            self._found[info.identity] = found
        return self._found[info.identity]


def _profile(device: Device, specimen: Specimen, known: _Known, here_s: Mapping[str, float]) -> DeviceProfile:
    if isinstance(device, ModelHolder):
        return profile_server(device, specimen, here_s)
    return known.get(device, lambda: profile_device(device, specimen, here_s))


def _inside(compute: ComputeCost, crossing: CrossingCost, unsupported: Mapping[str, str]) -> ComputeCost:
    """Scale what this process takes to what the enclave takes, and say what it cannot run."""
    return ComputeCost(
        latency_s={name: seconds * crossing.slowdown for name, seconds in compute.latency_s.items()},
        unsupported=dict(unsupported),
        basis=f"{compute.basis}; times {crossing.slowdown:.3g}, as a small network took in the enclave",
    )


def _crossing(call: AffineCost, crossing: CrossingCost) -> AffineCost:
    """Add the call inside the enclave, which the crossing leaves out, and what a cut costs."""
    return AffineCost(
        base_s=crossing.base_s + call.base_s,
        seconds_per_byte_in=crossing.seconds_per_byte_in + call.seconds_per_byte_in,
        seconds_per_byte_out=crossing.seconds_per_byte_out + call.seconds_per_byte_out,
        basis=f"{crossing.basis}; and the call inside: {call.basis}",
    )
