"""Predicted latency of a split against what a session over it takes: many networks, cuts and devices."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from networks import make_chain, make_mobilenet_v2, make_residual, make_resnet50
from part_server import PartServer
from results_file import Bar, Outcome
from timing import in_turns, median_ms, seconds

import siniantrust as st
from siniantrust import graph, odla, planner, runtime, trust
from siniantrust.bundle import KeyStore
from siniantrust.planner._pieces import even_cuts

_BAR = 15.0
_DEVICES: dict[str, tuple[str, dict[str, str | int | float | bool]]] = {
    "onnxruntime-1-thread": ("onnxruntime", {"threads": 1}),
    "onnxruntime-2-threads": ("onnxruntime", {"threads": 2}),
    "openvino": ("openvino", {}),
    "torch": ("torch", {}),
    "iree": ("iree", {}),
    "server": ("remote", {}),
}
_ALL = tuple(_DEVICES)
# IREE takes seconds to compile each piece of a large network.
_FAST_TO_COMPILE = tuple(name for name in _ALL if name != "iree")
# A request finds caches as the one before left them, if that was one of the same session.
_RUNS_IN_A_ROW = 4


@dataclass(frozen=True)
class _Subject:
    """A network, how many of its cuts to take, and the devices to place its second part on."""

    name: str
    proto: onnx.ModelProto
    cuts: int
    devices: tuple[str, ...]
    turns: int


def run(*, quick: bool) -> Outcome:
    """Measure every case (quick: one small network, one cut, two devices, few turns)."""
    rows: list[dict[str, Any]] = []
    for subject in _quick_subjects() if quick else _subjects():
        rows += _measure(subject)
    errors = [row["error, %"] for row in rows]
    return Outcome(
        title="Predicted against measured latency",
        method=(
            "The costs of a network are measured once, as `sinian plan` does, and every case is planned from them; "
            "then each is built, opened, and `Session.run` timed with one item. No case was measured before it was "
            "predicted: devices are profiled on the whole network and on up to eight pieces of it, none of which "
            "begins or ends at a case's cut, and the server holds another model while plans are made. Devices take "
            "turns of five requests, of which the first does not count. The machine is shared, and its speed changes "
            "from minute to minute: the whole network, bare and on one thread, is timed before and after the costs are "
            "measured and in every turn, and predictions are held against measurements in units of it (column "
            "*machine, now over then*)."
        ),
        rows=rows,
        bars=[
            Bar("median absolute error of the predicted latency, %", _BAR, float(np.median(np.abs(errors)))),
            Bar("cases", 2 if quick else 30, len(rows), at_most=False),
        ],
        remarks=_remarks(rows),
    )


def _remarks(rows: Sequence[dict[str, Any]]) -> list[str]:
    errors = np.array([row["error, %"] for row in rows])
    low, high = np.quantile(errors, (0.25, 0.75))
    worst = rows[int(np.abs(errors).argmax())]
    devices = np.array([row["device"] for row in rows])
    by_device = [f"{each} {np.median(np.abs(errors[devices == each])):.1f} %" for each in dict.fromkeys(devices)]
    where = f"{worst['network']}, {worst['cut']}, {worst['device']}"
    return [
        f"Errors (predicted over measured, by the yardstick, less one): middle half {low:+.1f} to {high:+.1f} %.",
        f"The worst is {worst['error, %']:+.1f} %: {where}.",
        f"Median absolute error by device: {', '.join(by_device)}.",
        "The server is a process of its own on this machine, reached by gRPC over loopback.",
    ]


def _subjects() -> list[_Subject]:
    return [
        _Subject("ResNet-50, 112 pixels", make_resnet50(112).proto, 4, _FAST_TO_COMPILE, 8),
        _Subject("MobileNetV2, 160 pixels", make_mobilenet_v2(160).proto, 4, _FAST_TO_COMPILE, 12),
        _Subject("chain of 60", make_chain(60), 2, _ALL, 20),
        _Subject("residual, 100 nodes", make_residual(100), 2, _ALL, 20),
    ]


def _quick_subjects() -> list[_Subject]:
    return [_Subject("MobileNetV2, 64 pixels", make_mobilenet_v2(64).proto, 1, _ALL[:2], 2)]


def _measure(subject: _Subject) -> list[dict[str, Any]]:
    model = st.load(subject.proto)
    cuts = graph.enumerate_cuts(model)
    policy = _policy(subject.devices)
    rows: list[dict[str, Any]] = []
    with ExitStack() as whole, tempfile.TemporaryDirectory() as name:
        yardstick = _yardstick(whole, model)
        before_s: list[float] = []
        yardstick(before_s)
        costs = _costs(model, cuts, policy, Path(name))
        yardstick(before_s)
        for number, cut in enumerate(_chosen(model, cuts, subject.cuts)):
            folder = Path(name) / str(number)
            with ExitStack() as stack:
                plans = {device: _plan(model, cut, policy, costs, device) for device in subject.devices}
                sessions = {device: _opened(stack, model, plan, folder / device) for device, plan in plans.items()}
                item = _item(model)
                in_turns({device: partial(_row, session, item, []) for device, session in sessions.items()}, turns=1)
                taken: dict[str, list[float]] = {device: [] for device in sessions}
                now_s: list[float] = []
                contestants = {
                    device: partial(_row, session, item, taken[device]) for device, session in sessions.items()
                }
                in_turns({**contestants, "yardstick": partial(yardstick, now_s)}, turns=subject.turns, warm_up=0)
            speed = float(np.median(now_s) / np.median(before_s))
            for device, plan in plans.items():
                predicted_ms, measured_ms = plan.prediction.latency_s * 1e3, median_ms(np.array(taken[device]))
                rows.append(
                    {
                        "network": subject.name,
                        "cut": cut.id,
                        "device": device,
                        "predicted, ms": predicted_ms,
                        "measured, ms": measured_ms,
                        "machine, now over then": speed,
                        "error, %": (predicted_ms * speed / measured_ms - 1) * 100,
                    }
                )
    return rows


def _yardstick(stack: ExitStack, model: graph.Model) -> Callable[[list[float]], None]:
    """Return a function that runs the whole network bare, on one thread, and notes the seconds."""
    device = stack.enter_context(closing(odla.open_device(odla.DeviceSpec("yardstick", options={"threads": 1}))))
    (part,) = graph.split(model, ())
    executable = stack.enter_context(closing(device.compile(part)))
    item = _item(model)

    def measure(taken: list[float]) -> None:
        executable.run(item)
        taken += [seconds(partial(executable.run, item)) for _ in range(_RUNS_IN_A_ROW)]

    return measure


def _policy(devices: Sequence[str]) -> planner.Policy:
    """Return a policy under which any cut may be taken: the input is declared public, so that no audit is needed."""
    return planner.parse_policy(
        {
            "public_inputs": ["input"],
            "enclave": {"accept": ["simulated"], "memory_bytes": 1 << 30, "threads": 1},
            "device": [
                {"name": name, "backend": _DEVICES[name][0], "options": _DEVICES[name][1], "clearance": "public"}
                for name in devices
            ],
            "objective": {"allow_all_trusted": False},
        },
        origin="benchmark",
    )


def _costs(model: graph.Model, cuts: graph.CutSet, policy: planner.Policy, folder: Path) -> planner.CostProfile:
    """Measure as ``sinian plan`` does; the server has another model meanwhile."""
    onnx.save(make_chain(4), folder / "other.onnx")
    with ExitStack() as stack:
        specs = _serving(stack, policy, folder / "other.onnx")
        devices = {
            entry.name: stack.enter_context(closing(odla.open_device(runtime.device_spec(policy, entry.name, specs))))
            for entry in policy.device
        }
        enclave = stack.enter_context(closing(trust.launch(runtime.enclave_spec(policy))))
        crossing = trust.measure_crossing(enclave)
        costs = planner.measure_costs(model, cuts, policy=policy, devices=devices, crossing=crossing, seed=0)
        switch_s = {name: trust.measure_switch(enclave, device) for name, device in devices.items()}
        return costs.with_overheads(request_s=runtime.measure_request(), switch_s=switch_s)


def _chosen(model: graph.Model, cuts: graph.CutSet, count: int) -> list[graph.Cut]:
    """Spread ``count`` cuts over the network, none at either end and none where the profile takes it apart."""
    taken = even_cuts(model, cuts)
    single = [cut for cut in cuts.cuts if len(cut.tensors) == 1 and not cut.fusable and cut not in taken]
    places = np.linspace(0, len(single) - 1, count + 2)[1:-1]
    return [single[round(place)] for place in places]


def _plan(
    model: graph.Model, cut: graph.Cut, policy: planner.Policy, costs: planner.CostProfile, device: str
) -> planner.Plan:
    only = tuple(entry for entry in policy.device if entry.name == device)
    cuts = graph.CutSet(cuts=(cut,), capped=False, cap=0)
    return planner.solve(model, cuts, policy=policy.model_copy(update={"device": only}), audit=None, costs=costs)


def _opened(stack: ExitStack, model: graph.Model, plan: planner.Plan, folder: Path) -> runtime.Session:
    """Build and open the deployment, with a server of its second part where the plan has one."""
    keystore = KeyStore(folder / "keys")
    bundle = st.build(model, plan, folder / "deploy", keystore=keystore)
    specs = _serving(stack, plan.policy, bundle / "part2")
    return stack.enter_context(st.open(bundle, keystore=keystore, devices=specs))


def _serving(stack: ExitStack, policy: planner.Policy, part: Path) -> dict[str, odla.DeviceSpec]:
    """Start a server of ``part`` for each server of the policy, and return how to reach it."""
    return {
        entry.name: odla.DeviceSpec(entry.name, "remote", {"url": stack.enter_context(PartServer(part)).url})
        for entry in policy.device
        if entry.backend == "remote"
    }


def _item(model: graph.Model) -> dict[str, np.ndarray]:
    tensor = model.inputs[0]
    return {tensor.name: np.random.default_rng(1).normal(size=tensor.shape).astype(tensor.dtype)}


def _row(session: runtime.Session, item: Mapping[str, np.ndarray], taken: list[float]) -> None:
    """Run some requests in a row, and note what all but the first took."""
    session.run(item)
    taken += [seconds(partial(session.run, item)) for _ in range(_RUNS_IN_A_ROW)]
