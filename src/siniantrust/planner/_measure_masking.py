"""Measuring what layers cost under one-time pads, on the machine at hand."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass

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
    server cannot be brought a part to be timed, and a device that refuses one, or computes it wrongly, gets none.

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
        wanted = _run(here, programs["int8"])
    prepare_s = _by_layer(programs["int8"], wanted)
    found: dict[Arithmetic, dict[str, dict[str, float]]] = {}
    refusing: dict[Arithmetic, dict[str, str]] = {}
    for each, exchanges in programs.items():
        found[each], refusing[each] = _on_devices(exchanges, policy, devices, wanted)
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
    exchanges: Sequence[Exchange], policy: Policy, devices: Mapping[str, Device], wanted: Sequence[_Run]
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Return each device's seconds by layer, and which devices compute them not or not as ``wanted``, and why."""
    found: dict[str, dict[str, float]] = {}
    refusing: dict[str, str] = {}
    for name in devices_under_pads(policy):
        device = devices[name]
        if isinstance(device, ModelHolder):
            continue
        try:
            runs = _run(device, exchanges)
        except DeviceError as fault:
            refusing[name] = str(fault)
            continue
        wrong = [each for one, other in zip(runs, wanted, strict=True) for each in one.other_than(other)]
        if wrong:
            refusing[name] = f"it computes '{wrong[0]}' wrongly, and {len(wrong) - 1} others"
        else:
            found[name] = _by_layer(exchanges, runs)
    return found, refusing


@dataclass(frozen=True)
class _Run:
    """What an exchange took, and gave for random masked values, the same for every device."""

    seconds: float
    outputs: Mapping[str, np.ndarray]

    def other_than(self, wanted: _Run) -> list[str]:
        """Return which results are not as wanted."""
        return [name for name, array in wanted.outputs.items() if not np.array_equal(array, self.outputs[name])]


def _run(device: Device, exchanges: Sequence[Exchange]) -> list[_Run]:
    """Run every exchange a few times.

    Raises:
        DeviceError: if the device refuses one of them.
    """
    generator = np.random.default_rng(0)
    runs = []
    for exchange in exchanges:
        inputs = {name: generator.integers(0, 256, exchange.form(name, 1), dtype=np.uint8) for name in exchange.entries}
        with closing(CheckedExecutable(device.compile(exchange.part), exchange.part, device.spec)) as executable:
            outputs = executable.run(inputs)
            runs.append(_Run(statistics.median(_seconds(executable, inputs) for _ in range(_REPEATS)), outputs))
    return runs


def _by_layer(exchanges: Sequence[Exchange], runs: Sequence[_Run]) -> dict[str, float]:
    """Return each node's seconds: its exchange's, shared among its nodes by their products."""
    seconds: dict[str, float] = {}
    for exchange, run in zip(exchanges, runs, strict=True):
        products = {}
        for layer in exchange.layers:
            count = layer.terms * int(np.prod(exchange.shapes[layer.exit]))
            parts = exchange.joins.get(layer.entry)
            if parts is None:
                products[layer.name] = count
            else:  # of as many channels as the value has that is its own input
                channels = exchange.shapes[layer.entry][1]
                products |= {part.node: count * part.shape[1] // channels for part in parts}
        total = sum(products.values())
        seconds |= {name: run.seconds * count / total for name, count in products.items()}
    return seconds


def _seconds(executable: CheckedExecutable, inputs: Mapping[str, np.ndarray]) -> float:
    start = time.perf_counter()
    executable.run(inputs)
    return time.perf_counter() - start
