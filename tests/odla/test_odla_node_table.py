"""ONNX's own backend tests on every backend here: passed, declined with a reason, or a listed deviation."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from test_odla_conformance import open_here

from siniantrust.graph import Part
from siniantrust.odla import Arrays, Device, DeviceSpec, Executable, open_device
from siniantrust.odla.conformance import Case, Outcome, light_cases, node_cases, run_case, sample

ROOT = Path(__file__).resolve().parents[2]


@cache
def tool() -> ModuleType:
    """Load tools/conformance.py."""
    spec = importlib.util.spec_from_file_location("conformance_tool", ROOT / "tools/conformance.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def opened(name: str) -> Device:
    """Open the table's device of a name; skip where its runtime is not installed or the device is not here."""
    return open_here(tool().DEVICES[name])


def check(name: str, cases: tuple[Case, ...]) -> None:
    """Run cases on a device, and hold the outcome against the listed deviations."""
    opened(name).close()
    verdicts = list(tool().run_cases(name, cases))
    assert len(verdicts) > 0
    names = {case.name for case in cases}
    listed = {case: why for case, why in tool().known_deviations(name).items() if case in names}
    assert tool().judge(verdicts, listed) == []
    assert all(verdict.reason for verdict in verdicts if verdict.outcome is not Outcome.PASSED)


@pytest.mark.parametrize("name", ["null", "onnxruntime", "torch"])
def test_every_node_case_passes_or_is_declined(name: str) -> None:
    """No case of ONNX's node tests comes out wrong, and each that is not run says why."""
    check(name, node_cases())


def test_openvino_passes_or_declines_a_sample() -> None:
    """OpenVINO, which compiles each case, is held against every fourth operator here and all cases in the slow run."""
    check("openvino", sample(node_cases(), per_operator=1)[::4])


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("name", "per_operator"), [("openvino", 10_000), ("iree", 1), ("iree-vulkan", 1)], ids=str)
def test_compiling_backends_pass_or_decline(name: str, per_operator: int) -> None:
    """The backends that take long to compile: OpenVINO all cases, IREE one of each operator on CPU and Vulkan."""
    check(name, sample(node_cases(), per_operator=per_operator))


@pytest.mark.parametrize("name", ["null", "onnxruntime"])
def test_light_networks_pass(name: str) -> None:
    """The networks that ship with ONNX compute what ONNX expects."""
    device = opened(name)
    for case in light_cases():
        assert run_case(device, case).outcome is Outcome.PASSED, case.name


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["openvino", "torch", "iree"])
def test_light_networks_pass_or_are_declined(name: str) -> None:
    """On the slower backends too, no network comes out wrong."""
    check(name, light_cases())


def test_the_published_counts_are_those_of_a_run() -> None:
    """docs/backends.json says of ONNX Runtime what the table says now, for the operators that are checked here."""
    published = json.loads((ROOT / "docs/backends.json").read_text())["onnxruntime"]["operators"]
    device = opened("onnxruntime")
    for operator in ("Conv", "Gemm", "Relu", "Softmax", "LSTM", "QuantizeLinear"):
        verdicts = [run_case(device, case) for case in node_cases() if case.operator == operator]
        counted = tool().summary(verdicts, description="", cases="")["operators"][operator]
        assert counted == published[operator], operator


def test_deviations_are_of_known_cases_and_give_reasons() -> None:
    """The list of deviations names backends and cases that exist, and says why."""
    names = {case.name for case in (*node_cases(), *light_cases())}
    listed = {name: tool().known_deviations(name) for name in tool().DEVICES}
    assert {case for each in listed.values() for case in each} <= names
    assert all(len(why) > 10 for each in listed.values() for why in each.values())


class Mutant:
    """ONNX Runtime with one thing wrong."""

    def __init__(self, wrong: Callable[[Part, dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
        self._device = open_device(DeviceSpec("mutant", options={"threads": 1}))
        self.spec, self.info, self.close = self._device.spec, self._device.info, self._device.close
        self.supports = self._device.supports
        self._wrong = wrong

    def compile(self, part: Part) -> Executable:
        """Compile, so that what is run comes out wrong."""
        executable = self._device.compile(part)
        inner = executable.run

        def run(inputs: Arrays) -> dict[str, np.ndarray]:
            return self._wrong(part, inner(inputs))

        executable.run = run  # type: ignore[method-assign]
        return executable


def _one_operator_off(part: Part, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if any(node.op_type == "Softmax" for node in part.proto.graph.node):
        return {name: array * array.dtype.type(1.01) for name, array in outputs.items()}
    return outputs


def _another_dtype(_: Part, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        name: array.astype(np.float64 if array.dtype != np.float64 else np.float32) for name, array in outputs.items()
    }


def _swapped(_: Part, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return dict(zip(outputs, reversed(outputs.values()), strict=True))


def _one_value(_: Part, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for array in outputs.values():
        if array.size:
            array.flat[-1] = not array.flat[-1] if array.dtype == bool else array.flat[-1] + 1
    return outputs


def _transposed(_: Part, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.T for name, array in outputs.items()}


@pytest.mark.parametrize(
    ("wrong", "operator", "caught"),
    [
        (_one_operator_off, "Softmax", "every"),
        (_one_operator_off, "Relu", "none"),
        (_another_dtype, "Add", "every"),
        (_swapped, "Split", "every"),
        (_swapped, "TopK", "every"),
        (_one_value, "Greater", "every"),
        (_one_value, "ArgMax", "every"),
        (_one_value, "Conv", "every"),
        (_transposed, "Concat", "some"),
    ],
)
def test_the_table_catches_a_mutant(
    wrong: Callable[[Part, dict[str, np.ndarray]], dict[str, np.ndarray]], operator: str, caught: str
) -> None:
    """A backend with one thing wrong fails just the cases that show it."""
    cases = [case for case in node_cases() if case.operator == operator and case.part is not None]
    good = open_device(DeviceSpec("good", options={"threads": 1}))
    sound = [case for case in cases if run_case(good, case).outcome is Outcome.PASSED]
    assert sound
    failed = [run_case(Mutant(wrong), case).outcome is Outcome.FAILED for case in sound]
    assert {"every": all(failed), "some": any(failed), "none": not any(failed)}[caught]


def test_the_table_catches_a_device_that_promises_too_much() -> None:
    """A device whose ``supports`` takes what it cannot run fails, rather than passing for declining."""
    device = open_device(DeviceSpec("boaster", options={"threads": 1}))
    declined = next(case for case in node_cases() if run_case(device, case).outcome is Outcome.DECLINED)
    device.supports = lambda part: []  # type: ignore[method-assign] # noqa: ARG005 - the name is the interface's
    verdict = run_case(device, declined)
    assert verdict.outcome is Outcome.FAILED
    assert "supports takes it, yet" in verdict.reason


def test_a_failure_that_is_not_listed_and_a_listed_pass_are_problems() -> None:
    """The list of deviations can neither hide a new failure nor keep an old one."""
    device = Mutant(_another_dtype)
    case = next(case for case in node_cases() if case.name == "test_add")
    verdict = run_case(device, case)
    assert tool().judge([verdict], {}) == [f"test_add: {verdict.reason}"]
    assert tool().judge([verdict], {"test_add": "is known"}) == []
    good = run_case(open_device(DeviceSpec("good")), case)
    assert tool().judge([good], {"test_add": "is known"}) == ["test_add: listed as a deviation, yet passed"]
