"""Devices that are killed at random while a session serves: requests lost, answered twice, wrong, and what they wait.

python benchmarks/migration.py --out benchmarks/results/migration
python benchmarks/migration.py --out benchmarks/results/migration-ray --devices ray
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from fleets import DEVICES, Fleet, ray_fleet, server_fleet
from networks import make_chain

import siniantrust as st
from siniantrust import graph, odla, planner, runtime, trust
from siniantrust._files import write_atomic
from siniantrust.bundle import KeyStore
from siniantrust.odla import DeviceSpec
from siniantrust.runtime import Observer, Session, describe_machine

# A request belongs to a kill if it was on its way between the kill and this much later.
_DURING_S = 0.25
_WORKERS = 4
_TOLERANCE = 1e-5
_START_S = 240.0

Arrays = Mapping[str, np.ndarray]
Opener = Callable[[Mapping[str, DeviceSpec], Sequence[Observer]], AbstractContextManager[Session]]


@dataclass(frozen=True)
class Phase:
    """Requests of one phase: how many, and their latency."""

    requests: int
    p50_ms: float | None
    p99_ms: float | None
    longest_ms: float | None


@dataclass(frozen=True)
class Outcome:
    """What became of the requests. ``lost`` ended with an error or not at all."""

    requests: int
    kills: int
    moves: dict[str, int]
    failed_calls: int
    lost: int
    answered_twice: int
    wrong: int
    before: Phase
    during: Phase
    after: Phase
    time_s: float
    faults: list[str] = field(default_factory=list)


class _Count(Observer):
    """Counts how often each request ended with an answer, and calls that failed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.answers: Counter[int] = Counter()
        self.failed_calls = 0

    def on_end(self, request: int, start_s: float, end_s: float, error: str | None) -> None:  # noqa: ARG002 - an observer's signature
        """Count an answer."""
        with self._lock:
            self.answers[request] += error is None

    def on_call(self, call: Any) -> None:
        """Count a failed call."""
        with self._lock:
            self.failed_calls += call.error is not None


class _Turnstile:
    """Hands out request numbers; each kill has its share of them, and they wait at its end until it is over."""

    def __init__(self, requests: int, kills: int) -> None:
        self._requests = requests
        self._share = requests / (kills + 1)
        self._changed = threading.Condition()
        self._next = 0
        self._over = 0

    def take(self) -> int | None:
        """Return the next request's number, None after the last one."""
        with self._changed:
            if self._next >= self._requests:
                return None
            number = self._next
            self._next += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: number < (self._over + 2) * self._share, timeout=_START_S)
            return number

    def wait_for(self, number: int) -> None:
        """Wait until request ``number`` was handed out."""
        with self._changed:
            self._changed.wait_for(lambda: self._next > number, timeout=_START_S)

    def kill_is_over(self) -> None:
        """Let the next share through."""
        with self._changed:
            self._over += 1
            self._changed.notify_all()


def serve_through_kills(
    opener: Opener, fleet: Fleet, requests: Sequence[Arrays], expected: Sequence[Arrays], *, kills: int, seed: int
) -> Outcome:
    """Run all requests from four threads while devices are killed at random times.

    Args:
        opener: opens the session for given devices and observers; part 2 is planned for ``cloud`` and may move to
            ``standby``.
        fleet: the two devices, both with part 2.
        requests: the inputs.
        expected: the uncut model's outputs.
        kills: how many.
        seed: of the times and the victims.
    """
    source, turnstile, count = random.Random(seed), _Turnstile(len(requests), kills), _Count()  # noqa: S311 - no secret
    answers: list[list[Arrays]] = [[] for _ in requests]
    times_s: list[tuple[float, float] | None] = [None] * len(requests)
    killed_s: list[float] = []
    faults: list[str] = []
    begin_s = time.perf_counter()
    with ExitStack() as stack:
        session = stack.enter_context(opener(fleet.specs(), [count]))

        def work() -> None:
            while (number := turnstile.take()) is not None:
                start_s = time.perf_counter()
                try:
                    answers[number].append(session.run(requests[number]))
                except Exception as fault:  # noqa: BLE001 - whatever it was, the request is lost
                    faults.append(f"request {number}: {type(fault).__name__}: {fault}")
                times_s[number] = start_s, time.perf_counter()

        workers = [threading.Thread(target=work) for _ in range(_WORKERS)]
        for worker in workers:
            worker.start()
        share = len(requests) / (kills + 1)
        for kill in range(kills):
            turnstile.wait_for(int((kill + source.uniform(1.0, 1.8)) * share))
            time.sleep(source.uniform(0, 0.01))
            (serving,) = session.placement()["part2"]
            killed_s.append(fleet.kill(serving, source))
            fleet.restore()
            turnstile.kill_is_over()
        for worker in workers:
            worker.join()
        moves = Counter(str(move.cause) for move in session.moves)
    wrong = sum(
        any(not np.allclose(answer[name], right[name], atol=_TOLERANCE) for answer in given for name in right)
        for given, right in zip(answers, expected, strict=True)
    )
    stays = [stay for stay in times_s if stay is not None]
    return Outcome(
        requests=len(requests),
        kills=len(killed_s),
        moves=dict(moves),
        failed_calls=count.failed_calls,
        lost=sum(not given for given in answers),
        answered_twice=sum(len(given) > 1 for given in answers) + sum(times > 1 for times in count.answers.values()),
        wrong=wrong,
        **_phases(stays, killed_s),
        time_s=time.perf_counter() - begin_s,
        faults=faults[:10],
    )


def _phases(stays: Sequence[tuple[float, float]], killed_s: Sequence[float]) -> dict[str, Phase]:
    found: dict[str, list[float]] = {"before": [], "during": [], "after": []}
    for start_s, end_s in stays:
        if any(start_s <= kill_s + _DURING_S and kill_s <= end_s for kill_s in killed_s):
            phase = "during"
        else:
            phase = "before" if not killed_s or end_s < killed_s[0] else "after"
        found[phase].append((end_s - start_s) * 1e3)
    return {name: _phase(latencies_ms) for name, latencies_ms in found.items()}


def _phase(latencies_ms: Sequence[float]) -> Phase:
    if not latencies_ms:
        return Phase(0, None, None, None)
    p50, p99 = np.quantile(latencies_ms, (0.5, 0.99))
    return Phase(len(latencies_ms), float(p50), float(p99), max(latencies_ms))


def run(devices: str, *, requests: int, kills: int, seed: int) -> tuple[Outcome, str]:
    """Build a deployment over a chain of 20 layers and serve through kills; also say what was killed and how."""
    model = st.load(make_chain(20))
    cuts = [cut for cut in graph.enumerate_cuts(model).cuts if len(cut.tensors) == 1]
    policy = planner.parse_policy(
        {
            "public_inputs": [tensor.name for tensor in model.inputs],
            "enclave": {"accept": ["simulated"], "memory_bytes": 1 << 30, "threads": 1},
            "device": [{"name": name, "options": {"threads": 1}, "clearance": "public"} for name in DEVICES],
            "objective": {"allow_all_trusted": False},
            # Either of two equal devices may have measured a little faster and be the planned one.
            "serving": {"takeover": list(DEVICES), "retries": 8},
        },
        origin="benchmark",
    )
    return _serve(model, cuts[len(cuts) // 2], policy, devices=devices, requests=requests, kills=kills, seed=seed)


def _serve(
    model: graph.Model, cut: graph.Cut, policy: planner.Policy, *, devices: str, requests: int, kills: int, seed: int
) -> tuple[Outcome, str]:
    with ExitStack() as stack, tempfile.TemporaryDirectory() as name:
        opened = {
            each: stack.enter_context(closing(odla.open_device(runtime.device_spec(policy, each, {}))))
            for each in DEVICES
        }
        only = graph.CutSet(cuts=(cut,), capped=False, cap=0)
        with closing(trust.launch(runtime.enclave_spec(policy))) as enclave:
            crossing = trust.measure_crossing(enclave)
            costs = planner.measure_costs(model, only, policy=policy, devices=opened, crossing=crossing, seed=0)
        plan = planner.solve(model, only, policy=policy, audit=None, costs=costs)
        keystore = KeyStore(Path(name) / "keys")
        bundle = st.build(model, plan, Path(name) / "deploy", keystore=keystore)
        (whole,) = graph.split(model, ())
        device = stack.enter_context(closing(odla.open_device(DeviceSpec("whole", options={"threads": 1}))))
        uncut = device.compile(whole)
        generator = np.random.default_rng(seed)
        inputs = [
            {tensor.name: generator.standard_normal(tensor.shape).astype(tensor.dtype) for tensor in model.inputs}
            for _ in range(requests)
        ]
        expected = [uncut.run(each) for each in inputs]

        def opener(specs: Mapping[str, DeviceSpec], observers: Sequence[Observer]) -> Session:
            return st.open(bundle, keystore=keystore, devices=specs, observers=observers)

        fleet: Fleet
        if devices == "ray":
            fleet = stack.enter_context(ray_fleet(kills=kills))
        else:
            fleet = stack.enter_context(server_fleet(bundle / plan.parts[1].name))
        return serve_through_kills(opener, fleet, inputs, expected, kills=kills, seed=seed), fleet.about


def table(outcome: Outcome, about: str, *, machine: str) -> str:
    """Return the outcome as a page in Markdown; ``about`` says what was killed and how."""
    moves = ", ".join(f"{count} by {cause}" for cause, count in sorted(outcome.moves.items())) or "none"
    calls = (outcome.requests, outcome.kills, moves, outcome.failed_calls)
    verdict = (outcome.lost, outcome.answered_twice, outcome.wrong)
    lines = [
        "# Requests through kills",
        "",
        f"{about} A request counts as *during*",
        f"if it was on its way within {_DURING_S:g} s after a kill.",
        "",
        f"| requests | kills | moves | failed calls | lost | answered twice | wrong |\n{'|---' * 7}|",
        f"| {' | '.join(map(str, calls + verdict))} |",
        "",
        f"| phase | requests | p50, ms | p99, ms | longest, ms |\n{'|---' * 5}|",
    ]
    for name in ("before", "during", "after"):
        phase: Phase = getattr(outcome, name)
        figures = (phase.p50_ms, phase.p99_ms, phase.longest_ms)
        shown = " | ".join("-" if figure is None else f"{figure:.2f}" for figure in figures)
        lines.append(f"| {name} | {phase.requests} | {shown} |")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return "\n".join([*lines, "", f"{machine}; load average at the end {load}; {outcome.time_s:.0f} s.", ""])


def main() -> None:
    """Run it and write JSON and a page."""
    parser = argparse.ArgumentParser(description="Kill devices at random while a session serves.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the figures")
    parser.add_argument("--devices", choices=["servers", "ray"], default="servers")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    outcome, about = run(arguments.devices, requests=arguments.requests, kills=arguments.kills, seed=arguments.seed)
    machine = describe_machine()
    arguments.out.mkdir(parents=True, exist_ok=True)
    record = {
        **asdict(outcome),
        "machine": machine,
        "load_average": list(os.getloadavg()),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_atomic(arguments.out / "migration.json", (json.dumps(record, indent=1) + "\n").encode())
    page = table(outcome, about, machine=machine)
    write_atomic(arguments.out / "README.md", page.encode())
    print(page)


if __name__ == "__main__":
    main()
