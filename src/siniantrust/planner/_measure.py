"""Measuring a cost profile: the whole model once per device, node by node where the device can tell."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Mapping

import numpy as np

from siniantrust.errors import DeviceError, DeviceLostError, PlanError
from siniantrust.graph import Model, Part, Tensor
from siniantrust.odla import Arrays, Device, DeviceSpec, NodeProfile, Profiler, open_device, profile
from siniantrust.planner._costs import AffineCost, ComputeCost, CostProfile
from siniantrust.planner._policy import Policy
from siniantrust.planner._profile_store import ProfileStore
from siniantrust.trust import CrossingCost, unsupported_nodes

_RUNS = 3
# Repeats are chosen so that a device costs about a second, runs and the profile's events (one per node) together.
_FLOPS_IN_TIME = 5e9
_EVENTS_IN_TIME = 5000
_MOST_REPEATS = 20
# A link of 1 Gbit/s, for servers whose link cannot be measured before they hold a part.
_ASSUMED_SECONDS_PER_BYTE = 8e-9
_IN_PROCESS = AffineCost(
    base_s=0.0, seconds_per_byte_in=0.0, seconds_per_byte_out=0.0, basis="in this process: nothing is moved"
)


def measure_costs(
    model: Model,
    *,
    policy: Policy,
    devices: Mapping[str, Device],
    crossing: CrossingCost,
    seed: int,
    store: ProfileStore | None = None,
) -> CostProfile:
    """Measure what every node costs in the enclave's configuration and on each untrusted device, for one batch item.

    A device that can profile is measured node by node. Another one (a server) is measured by one run of the whole
    model, over which the local profile is spread; a server that does not hold the whole model is taken to compute as
    fast as this machine over a link of 1 Gbit/s. ``basis`` says which.

    Args:
        model: the model.
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
    part = Part(
        "whole", model.proto, model.inputs, model.outputs, tuple(n.name for n in model.nodes), model.batch_symbol
    )
    inputs = _random_inputs(model.inputs, seed)
    meter = _Meter(part, inputs, model.sha256, store or ProfileStore(None), repeats=_repeats(model))
    enclave = open_device(DeviceSpec("enclave", options={"threads": policy.enclave.threads}))
    trusted = meter.profile(enclave)
    compute: dict[str, ComputeCost] = {}
    transfers: dict[str, AffineCost] = {}
    for entry in policy.device:
        compute[entry.name], transfers[entry.name] = _measure_device(devices[entry.name], meter, trusted)
    return CostProfile(
        model_sha256=model.sha256,
        trusted=ComputeCost(
            latency_s=dict(trusted.latency_s),
            unsupported=unsupported_nodes(policy.enclave.provider, part),
            basis=trusted.basis,
        ),
        devices=compute,
        crossing=AffineCost(
            base_s=crossing.base_s,
            seconds_per_byte_in=crossing.seconds_per_byte_in,
            seconds_per_byte_out=crossing.seconds_per_byte_out,
            basis=crossing.basis,
        ),
        transfers=transfers,
        machine=f"{enclave.info().description}, {platform.system()} {platform.machine()}",
    )


class _Meter:
    """Profiles one part; a device that is another one under a new name is not measured again."""

    def __init__(self, part: Part, inputs: Arrays, model_sha256: str, store: ProfileStore, *, repeats: int) -> None:
        self.part = part
        self.inputs = inputs
        self._model_sha256 = model_sha256
        self._store = store
        self._repeats = repeats
        self._known: dict[str, NodeProfile] = {}

    def profile(self, device: Device) -> NodeProfile:
        """Return the seconds per node on ``device``."""
        identity = device.info().identity
        if identity not in self._known:
            found = self._store.get(self._model_sha256, identity)
            if found is None or found.latency_s.keys() != set(self.part.node_names):
                found = profile(device, self.part, self.inputs, repeats=self._repeats)
                self._store.put(self._model_sha256, identity, found)
            self._known[identity] = found
        return self._known[identity]


def _repeats(model: Model) -> int:
    most = min(_FLOPS_IN_TIME / max(model.flops, 1), _EVENTS_IN_TIME / max(len(model.nodes), 1))
    return int(np.clip(most, _RUNS, _MOST_REPEATS))


def _random_inputs(tensors: tuple[Tensor, ...], seed: int) -> dict[str, np.ndarray]:
    """Make one item per input: normal numbers, and zeros for integers, which may be indices."""
    generator = np.random.default_rng(seed)
    made = {}
    for tensor in tensors:
        dtype = np.dtype(tensor.dtype)
        if dtype.kind == "f":
            made[tensor.name] = generator.standard_normal(tensor.shape).astype(dtype)
        elif dtype.kind == "O":
            made[tensor.name] = np.full(tensor.shape, "", dtype=object)
        else:
            made[tensor.name] = np.zeros(tensor.shape, dtype=dtype)
    return made


def _measure_device(device: Device, meter: _Meter, trusted: NodeProfile) -> tuple[ComputeCost, AffineCost]:
    if not isinstance(device, Profiler):
        return _measure_whole(device, meter)
    refused = device.supports(meter.part)
    if not refused:
        found = meter.profile(device)
        return ComputeCost(latency_s=dict(found.latency_s), basis=found.basis), _IN_PROCESS
    reasons = {each.node: each.reason for each in refused}
    if "" in reasons:  # the device refuses the model as a whole, and names no node
        reasons = dict.fromkeys(meter.part.node_names, reasons[""])
    basis = "estimated: as in the enclave, since the device does not run the whole model"
    return ComputeCost(latency_s=dict(trusted.latency_s), unsupported=reasons, basis=basis), _IN_PROCESS


def _measure_whole(device: Device, meter: _Meter) -> tuple[ComputeCost, AffineCost]:
    """Spread the local profile over one measured run; what the run takes longer is the way there and back."""
    local = meter.profile(open_device(DeviceSpec("local")))
    name = device.spec.name
    moved_bytes = sum(tensor.size_bytes for tensor in (*meter.part.inputs, *meter.part.outputs))
    link = f"bytes as over 1 Gbit/s ({_ASSUMED_SECONDS_PER_BYTE:g} s per byte)"
    try:
        total_s = _median_run(device, meter)
    except DeviceLostError:
        raise
    except DeviceError:
        start = time.perf_counter()
        device.supports(meter.part)  # a server that is gone raises here
        base_s = time.perf_counter() - start
        compute = ComputeCost(
            latency_s=dict(local.latency_s), basis=f"estimated: as on this machine, since '{name}' holds another model"
        )
        return compute, _link(base_s, f"estimated: one measured exchange without data, {link}")
    remaining_s = total_s - _ASSUMED_SECONDS_PER_BYTE * moved_bytes
    scale = float(np.clip(remaining_s / max(local.total_s, 1e-9), 0.0, 1.0))
    compute = ComputeCost(
        latency_s={node: seconds * scale for node, seconds in local.latency_s.items()},
        basis=f"estimated: the local profile times {scale:.3g}, from {_RUNS} measured runs of the whole model",
    )
    base_s = max(remaining_s - local.total_s, 0.0)
    return compute, _link(base_s, f"estimated: what those runs took longer than here; {link}")


def _median_run(device: Device, meter: _Meter) -> float:
    executable = device.compile(meter.part)
    try:
        executable.run(meter.inputs)
        taken = []
        for _ in range(_RUNS):
            start = time.perf_counter()
            executable.run(meter.inputs)
            taken.append(time.perf_counter() - start)
        return statistics.median(taken)
    finally:
        executable.close()


def _link(base_s: float, basis: str) -> AffineCost:
    return AffineCost(
        base_s=base_s,
        seconds_per_byte_in=_ASSUMED_SECONDS_PER_BYTE,
        seconds_per_byte_out=_ASSUMED_SECONDS_PER_BYTE,
        basis=basis,
    )
