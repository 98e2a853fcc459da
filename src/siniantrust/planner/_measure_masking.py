"""Measuring what layers cost under one-time pads, on the machine at hand."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict

import numpy as np

from siniantrust.errors import DeviceError
from siniantrust.graph import Model
from siniantrust.masking.exact import Arithmetic, Exchange, build_program, measure_costs, offerable, unprovable
from siniantrust.odla import CheckedExecutable, Device, DeviceSpec, ModelHolder, open_device
from siniantrust.planner._costs import MaskingProfile
from siniantrust.planner._masked_costs import devices_under_pads
from siniantrust.planner._policy import Policy

_REPEATS = 3
# The first one is what a processor does fastest; GPUs hardly have its operators.
_ARITHMETICS: tuple[Arithmetic, ...] = ("int8", "float64")


def measure_masking(model: Model, policy: Policy, devices: Mapping[str, Device]) -> MaskingProfile:
    """Measure the enclave's work by kind in this process, and every offerable layer in the arithmetic of pads.

    Devices compute in the arithmetic in which the fastest of them is fastest, and in float64 where none was timed. A
    server cannot be brought a part to be timed, and a device that refuses one computes nothing under pads.

    Args:
        model: the model.
        policy: says which devices may see padded values, and with how many threads the enclave computes.
        devices: an open device for each name in the policy.
    """
    by_form = [name for name, reason in offerable(model).items() if reason is None]
    refused = unprovable(model, by_form)
    names = [name for name in by_form if name not in refused]
    nodes = {node.name: node for node in model.nodes}
    entries = {model.proto.graph.node[nodes[name].index].input[0] for name in names}
    programs = {
        each: build_program(model, names, dict.fromkeys(entries, 1.0), arithmetic=each).exchanges
        for each in _ARITHMETICS
    }
    costs = measure_costs()
    with closing(open_device(DeviceSpec("enclave", options={"threads": policy.enclave.threads}))) as here:
        prepare_s = _timed(here, programs["int8"])
    found: dict[Arithmetic, dict[str, dict[str, float]]] = {}
    refusing: dict[Arithmetic, dict[str, str]] = {}
    for each, exchanges in programs.items():
        found[each], refusing[each] = _on_devices(exchanges, policy, devices)
    arithmetic = min(programs, key=lambda each: _fastest_s(found[each])) if any(found.values()) else "float64"
    basis = f"fitted to layers of several shapes, and each of the model's measured {_REPEATS} times in {arithmetic}"
    servers = [name for name in devices_under_pads(policy) if isinstance(devices[name], ModelHolder)]
    return MaskingProfile(
        **asdict(costs),
        arithmetic=arithmetic,
        device_s=found[arithmetic],
        prepare_s=prepare_s,
        refused=refused,
        refusing=refusing[arithmetic],
        basis=basis + (f"; a server cannot be brought a part to be timed: {', '.join(servers)}" if servers else ""),
    )


def _fastest_s(found: Mapping[str, Mapping[str, float]]) -> float:
    return min((sum(layers.values()) for layers in found.values()), default=math.inf)


def _on_devices(
    exchanges: tuple[Exchange, ...], policy: Policy, devices: Mapping[str, Device]
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Return each device's seconds by layer, and which devices refuse them, and why."""
    found: dict[str, dict[str, float]] = {}
    refusing: dict[str, str] = {}
    for name in devices_under_pads(policy):
        device = devices[name]
        if not isinstance(device, ModelHolder):
            try:
                found[name] = _timed(device, exchanges)
            except DeviceError as fault:
                refusing[name] = str(fault)
    return found, refusing


def _timed(device: Device, exchanges: tuple[Exchange, ...]) -> dict[str, float]:
    """Return each layer's seconds: its exchange's, shared among its layers by their products.

    Raises:
        DeviceError: if the device refuses one of them.
    """
    generator = np.random.default_rng(0)
    seconds: dict[str, float] = {}
    for exchange in exchanges:
        inputs = {name: generator.integers(0, 256, exchange.form(name, 1), dtype=np.uint8) for name in exchange.entries}
        with closing(CheckedExecutable(device.compile(exchange.part), exchange.part, device.spec)) as executable:
            executable.run(inputs)
            taken_s = statistics.median(_seconds(executable, inputs) for _ in range(_REPEATS))
        products = {layer.name: layer.terms * int(np.prod(exchange.shapes[layer.exit])) for layer in exchange.layers}
        total = sum(products.values())
        seconds |= {name: taken_s * count / total for name, count in products.items()}
    return seconds


def _seconds(executable: CheckedExecutable, inputs: Mapping[str, np.ndarray]) -> float:
    start = time.perf_counter()
    executable.run(inputs)
    return time.perf_counter() - start
