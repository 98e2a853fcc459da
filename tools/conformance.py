"""Run the conformance table and keep what each backend passed, operator by operator, for docs/backends.md.

python tools/conformance.py                          every backend, every case: the better part of an hour
python tools/conformance.py openvino                 one of them
python tools/conformance.py iree --per-operator 1    the first case of each operator only

Exit code 1 if a case fails that ``tests/odla/known_deviations.toml`` does not list, or a listed one passes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from siniantrust._files import write_atomic
from siniantrust.odla import DeviceSpec, open_device
from siniantrust.odla.conformance import Case, Outcome, Verdict, light_cases, node_cases, run_case, sample

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "backends.json"
DEVIATIONS = ROOT / "tests" / "odla" / "known_deviations.toml"
DEVICES = {
    "onnxruntime": DeviceSpec("onnxruntime", options={"threads": 1}),
    "openvino": DeviceSpec("openvino", "openvino", {"threads": 1}),
    "torch": DeviceSpec("torch", "torch"),
    "iree": DeviceSpec("iree", "iree"),
    "iree-vulkan": DeviceSpec("iree-vulkan", "iree", {"target": "vulkan"}),
    "null": DeviceSpec("null", "null"),
}
SLOW_S = 1.0


def known_deviations(name: str) -> Mapping[str, str]:
    """Return the listed deviations of a backend: case to reason."""
    listed: dict[str, dict[str, str]] = tomllib.loads(DEVIATIONS.read_text())
    return listed.get(name, {})


def judge(verdicts: Iterable[Verdict], deviations: Mapping[str, str]) -> list[str]:
    """Return what is wrong: failures that are not listed, and listed ones that did not fail."""
    problems = []
    for verdict in verdicts:
        failed = verdict.outcome is Outcome.FAILED
        if failed and verdict.case not in deviations:
            problems.append(f"{verdict.case}: {verdict.reason}")
        elif not failed and verdict.case in deviations:
            problems.append(f"{verdict.case}: listed as a deviation, yet {verdict.outcome}")
    return problems


def summary(verdicts: list[Verdict], *, description: str, cases: str) -> dict[str, Any]:
    """Return the counts by operator, with one reason where cases were declined."""
    operators: dict[str, dict[str, Any]] = {}
    for verdict in sorted(verdicts, key=lambda each: (each.operator, each.case)):
        entry = operators.setdefault(verdict.operator, {})
        entry[verdict.outcome.value] = entry.get(verdict.outcome.value, 0) + 1
        if verdict.outcome is Outcome.DECLINED:
            entry.setdefault("why", verdict.reason[:160])
    total = Counter(verdict.outcome.value for verdict in verdicts)
    return {"device": description, "cases": cases, "total": dict(sorted(total.items())), "operators": operators}


def run_table(name: str, *, per_operator: int | None = None, show: bool = False) -> tuple[list[Verdict], str]:
    """Run a backend through the table; return the verdicts and the device's description."""
    cases = (*node_cases(), *light_cases())
    verdicts = []
    start = time.perf_counter()
    for verdict in run_cases(name, cases if per_operator is None else sample(cases, per_operator=per_operator)):
        verdicts.append(verdict)
        taken_s = time.perf_counter() - start
        if show and (verdict.outcome is Outcome.FAILED or taken_s > SLOW_S):
            print(f"{name} {verdict.case} {taken_s:.1f} s {verdict.outcome} {verdict.reason[:300]}", flush=True)
        start = time.perf_counter()
    with closing(open_device(DEVICES[name])) as device:
        return verdicts, device.info().description


def run_cases(name: str, cases: Iterable[Case]) -> Iterator[Verdict]:
    """Run cases on a backend, whose device is opened anew after one that failed: it may have taken the device along."""
    device = open_device(DEVICES[name])
    for case in cases:
        verdict = run_case(device, case)
        yield verdict
        if verdict.outcome is Outcome.FAILED:
            device.close()
            device = open_device(DEVICES[name])
    device.close()


def main() -> int:
    """Run the table for the backends that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backends", nargs="*", choices=[[], *DEVICES], metavar="BACKEND")
    parser.add_argument("--per-operator", type=int, metavar="N")
    arguments = parser.parse_args()
    failures = 0
    for name in arguments.backends or DEVICES:
        verdicts, description = run_table(name, per_operator=arguments.per_operator, show=True)
        cases = "all" if arguments.per_operator is None else f"{arguments.per_operator} for each operator"
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results[name] = summary(verdicts, description=description, cases=cases)
        ordered = {key: results[key] for key in DEVICES if key in results}
        write_atomic(RESULTS, (json.dumps(ordered, indent=1) + "\n").encode())
        problems = judge(verdicts, known_deviations(name))
        failures += len(problems)
        print(f"{name}: {results[name]['total']}", *problems, sep="\n  ", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
