"""What masking leaves to the trusted side: its own work per inference against the whole network on one core."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from networks import NETWORKS
from results_file import Bar, Outcome
from timing import ratio_interval

from siniantrust import graph
from siniantrust.masking.exact import (
    Corrections,
    Costs,
    Meter,
    Program,
    Query,
    Trusted,
    best_passes,
    build_program,
    calibrate,
    choose_layers,
    measure_costs,
    offerable,
)
from siniantrust.masking.exact.resident import Count
from siniantrust.odla import CheckedExecutable, DeviceSpec, open_part, profile

_NETWORKS = ("vgg16", "resnet50", "mobilenet_v2")
_QUICK_NETWORKS = ("resnet50",)
_RATIO_BARS = {"vgg16": 8.0, "resnet50": 3.0}
_BYTES_BAR = 30.0
_WORD_BYTES = 4
_MIB = 1 << 20
# As in a plan.
_LEAST_SAVED = 0.1
_ITEMS = (1, 4)
_TURNS = {1: 11, 4: 7}
_ONE_THREAD = {"threads": 1}
_KINDS = ("mask_s", "unmask_s", "verify_s", "segment_s")


@dataclass(frozen=True)
class _Turns:
    """Seconds (turns,) of the whole network, and of each field of the meter, with what the device took."""

    whole_s: np.ndarray
    device_s: np.ndarray
    metered: dict[str, np.ndarray]

    @property
    def trusted_s(self) -> np.ndarray:
        """All that the trusted side does while a request is under way."""
        total: np.ndarray = np.sum([self.metered[kind] for kind in _KINDS], axis=0)
        return total


def run(*, quick: bool) -> Outcome:
    """Measure networks with every layer on a device, and with those that cost chooses (quick: ResNet-50, small)."""
    costs = measure_costs(repeats=3 if quick else 15)
    rows, bars = [], []
    for key in _QUICK_NETWORKS if quick else _NETWORKS:
        network = NETWORKS[key](32 if quick else 224)
        model = graph.load_model(network.proto)
        choices = choose_layers(model, costs, _inside_s(model), least_saved=_LEAST_SAVED)
        every = [name for name, reason in offerable(model).items() if reason is None]
        chosen = [name for name, choice in choices.items() if choice.offered]
        runs = [("every layer", every, _ITEMS[0])] if chosen != every else []
        runs += [("chosen", chosen, items) for items in _ITEMS if chosen]
        for which, offered, items in runs:
            row, ratio, saved = _measured(model, offered, items=items, turns=2 if quick else _TURNS[items])
            layers = f"{which}: {len(offered)} of {len(every)}"
            rows.append({"network": network.name, "on devices": layers, "inferences a request": items, **row})
        if key in _RATIO_BARS:
            what = f"{network.name}, {items} inferences a request: whole network over the trusted side's work"
            bars.append(Bar(what, _RATIO_BARS[key], ratio, at_most=False))
        if key == "resnet50":
            bars.append(Bar(f"{network.name}: bytes saved against layer by layer, %", _BYTES_BAR, saved, at_most=False))
    return Outcome(
        title="Exact masks",
        method=(
            "Processor time of one thread, all by inference, of requests with one and with several (a batch, for the "
            "whole network too). *Whole* is the network in float32 in ONNX Runtime. *Trusted* is the sum of "
            "the four columns before it: masking, unmasking (with the check's sums over results), the "
            "rest of verification (to 2^-40), and what stays inside. *Preparation* is the corrections, in "
            "idle time; it is not in the ratio. *Device* is an untrusted device on another core, in 8 bits; it "
            "is not in the ratio either. *Layer by layer* is what goes and comes when every linear layer is sent and "
            "returned by itself (Slalom). *Chosen* are the layers that take less time masked than inside, by costs "
            "measured at the start; the bars are about them, with several inferences a request."
        ),
        rows=rows,
        bars=bars,
        remarks=[
            f"Passes in {best_passes().name}. Costs: {_in_words(costs)}.",
            "The trusted side runs in the benchmark's process: *simulated*. Crossing into an enclave is not in it.",
            "On a processor that also plays the device, masking never pays: the figures are for a device that is fast.",
        ],
    )


def _in_words(costs: Costs) -> str:
    nanoseconds = {name.removesuffix("_s"): value * 1e9 for name, value in asdict(costs).items()}
    break_even = (costs.mask_s + costs.unmask_s + costs.verify_s) / (2 * costs.point_s)
    return (
        ", ".join(f"{name} {value:.3g} ns" for name, value in nanoseconds.items())
        + f"; a 1 x 1 convolution breaks even at {break_even:.0f} products for each number that crosses"
    )


def _inside_s(model: graph.Model) -> dict[str, float]:
    """Return what each node takes inside: its share in a profile, of a run without one."""
    (whole,) = graph.split(model, ())
    x = {model.inputs[0].name: np.random.default_rng(0).normal(size=(1, *model.inputs[0].shape[1:])).astype(np.float32)}
    with ExitStack() as stack:
        device, executable = open_part(DeviceSpec("one thread", options=_ONE_THREAD), whole)
        stack.callback(device.close)
        stack.callback(executable.close)
        found = profile(device, whole, x).latency_s
        bare_s = np.median([_seconds(lambda: executable.run(x)) for _ in range(9)])
    return {name: float(bare_s * seconds / sum(found.values())) for name, seconds in found.items()}


def _measured(model: graph.Model, offered: list[str], *, items: int, turns: int) -> tuple[dict[str, Any], float, float]:
    """Return a network's figures by inference, the whole over the trusted side's, and the percentage of bytes saved."""
    generator = np.random.default_rng(0)
    shape = model.inputs[0].shape[1:]
    program = _program(model, offered, generator.normal(size=(4, *shape)).astype(np.float32))
    found, stock_bytes = _in_turns(
        model, program, generator.normal(size=(items, *shape)).astype(np.float32), turns=turns
    )
    ratio = float(np.median(found.whole_s) / np.median(found.trusted_s))
    low, high = ratio_interval(found.whole_s, found.trusted_s)
    sent, received = (float(found.metered[kind][0]) for kind in ("sent_bytes", "received_bytes"))
    layer_by_layer = _layer_by_layer_bytes(model)
    saved = 100 * (1 - (sent + received) / layer_by_layer)
    row = {
        "whole, ms": _ms(found.whole_s),
        "mask, ms": _ms(found.metered["mask_s"]),
        "unmask, ms": _ms(found.metered["unmask_s"]),
        "verify, ms": _ms(found.metered["verify_s"]),
        "segments, ms": _ms(found.metered["segment_s"]),
        "trusted, ms": _ms(found.trusted_s),
        "whole / trusted": f"{ratio:.2f} ({low:.2f} to {high:.2f})",
        "preparation, ms": _ms(found.metered["prepare_s"]),
        "stock, MiB": stock_bytes / _MIB,
        "device, ms": _ms(found.device_s),
        "sent, MiB": sent / _MIB,
        "received, MiB": received / _MIB,
        "layer by layer, MiB": layer_by_layer / _MIB,
    }
    return row, ratio, saved


def _ms(seconds: np.ndarray) -> float:
    return float(np.median(seconds) * 1e3)


def _program(model: graph.Model, offered: list[str], samples: np.ndarray) -> Program:
    """Return the model with the offered layers on a device."""
    entries = [model.proto.graph.node[node.index].input[0] for node in model.nodes if node.name in offered]
    return build_program(model, offered, calibrate(model, entries, {model.inputs[0].name: samples}))


class _Device(AbstractContextManager["_Device"]):
    """The untrusted side, in a thread on a core of its own, as an enclave that has its core to itself sees it."""

    def __init__(self, program: Program, core: int) -> None:
        self._corrections = Corrections([exchange.corrections for exchange in program.exchanges])
        self._thread = ThreadPoolExecutor(1, initializer=os.sched_setaffinity, initargs=(0, {core}))
        with ExitStack() as stack:
            stack.callback(self._thread.shutdown)
            self._opened = [_opened(exchange.part, stack) for exchange in program.exchanges]
            self._stack = stack.pop_all()
        self.taken_s = 0.0

    @property
    def kept_bytes(self) -> int:
        """Bytes of corrections that lie here."""
        return self._corrections.kept_bytes

    def keep(self, rows: Mapping[int, np.ndarray]) -> None:
        """Keep what the trusted side prepared."""
        self._corrections.keep(rows)

    def answer(self, query: Query) -> dict[str, np.ndarray]:
        """Return the answers to what a query has to ask next, corrections added."""
        return self._thread.submit(self._answer, query.exchange, query.queries, query.request or {}).result()

    def _answer(self, exchange: int, queries: list[int], request: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        start = time.thread_time()
        answers = self._corrections.added(exchange, queries, self._opened[exchange].run(request))
        self.taken_s += time.thread_time() - start
        return answers

    def forget(self, query: Query) -> None:
        """Drop what is kept for a query, and what it took."""
        self._corrections.forget(query.queries)
        self.taken_s = 0.0

    def __exit__(self, *_: object) -> None:
        """End the thread and free what it ran."""
        self._stack.close()


def _in_turns(model: graph.Model, program: Program, x: np.ndarray, *, turns: int) -> tuple[_Turns, int]:
    """Run the whole network and masked queries by turns; return what an item took of each, and one's stock."""
    name, items = model.inputs[0].name, len(x)
    (whole,) = graph.split(model, ())
    whole_s, device_s, metered = [], [], []
    stock_bytes = 0
    with ExitStack() as stack:
        core = stack.enter_context(_other_core())
        executable = _opened(whole, stack)
        trusted = Trusted(program, open_part=lambda part: _opened(part, stack).run, key=os.urandom(32), ledger=Count())
        device = stack.enter_context(_Device(program, core))
        for turn in range(-1, turns):
            spent_s = _seconds(lambda: executable.run({name: x})) if turn % 2 else 0.0
            trusted.meter = meter = Meter()
            device.keep(trusted.prepare(items))
            stock_bytes = device.kept_bytes // items
            query = trusted.begin({name: x})
            while query.request is not None:
                query.accept(device.answer(query))
            if turn >= 0:
                metered.append({each.name: float(getattr(meter, each.name)) / items for each in fields(meter)})
                device_s.append(device.taken_s / items)
                whole_s.append((spent_s or _seconds(lambda: executable.run({name: x}))) / items)
            device.forget(query)
    columns = {kind: np.array([each[kind] for each in metered]) for kind in metered[0]}
    return _Turns(np.array(whole_s), np.array(device_s), columns), stock_bytes


def _opened(part: graph.Part, stack: ExitStack) -> CheckedExecutable:
    device, executable = open_part(DeviceSpec("one thread", options=_ONE_THREAD), part)
    stack.callback(device.close)
    stack.callback(executable.close)
    return executable


@contextmanager
def _other_core() -> Iterator[int]:
    """Keep this thread on one core; yield another one, or the same where there is no other."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield max(cores)
    finally:
        os.sched_setaffinity(0, cores)


def _seconds(function: Callable[[], object]) -> float:
    start = time.thread_time()
    function()
    return time.thread_time() - start


def _layer_by_layer_bytes(model: graph.Model) -> int:
    """Return what crosses per inference when each linear layer's input and output travel by themselves."""
    elements = 0
    for name, reason in offerable(model).items():
        if reason is None:
            node = next(each for each in model.nodes if each.name == name)
            proto = model.proto.graph.node[node.index]
            elements += model.tensors[proto.input[0]].elements + model.tensors[proto.output[0]].elements
    return elements * _WORD_BYTES
