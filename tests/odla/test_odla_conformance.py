"""The conformance table: every in-tree backend computes what ONNX's own reference computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from odla_parts import PARTS, conv_part, random_inputs
from onnx.reference import ReferenceEvaluator

from siniantrust.errors import DeviceError
from siniantrust.graph import Part
from siniantrust.odla import Device, DeviceSpec, Executable, available_backends, open_device
from siniantrust.odla._compare import difference
from siniantrust.odla.oip import Endpoints

BACKENDS = (
    "onnxruntime",
    "openvino",
    "torch",
    "remote-grpc",
    "remote-http",
    # Each part takes IREE seconds to compile.
    pytest.param("iree", marks=pytest.mark.slow),
    pytest.param("iree-vulkan", marks=pytest.mark.slow),
    # A cluster takes seconds to start; test_odla_ray.py has its own run over the parts.
    pytest.param("ray", marks=pytest.mark.slow),
)
LOCAL = {
    "onnxruntime": DeviceSpec("cpu"),
    "openvino": DeviceSpec("cpu", "openvino"),
    "torch": DeviceSpec("cpu", "torch"),
    "iree": DeviceSpec("cpu", "iree"),
    "iree-vulkan": DeviceSpec("gpu", "iree", {"target": "vulkan"}),
}
OpenFor = Callable[[str, Part], Device]


def open_here(spec: DeviceSpec) -> Device:
    """Open a device; skip where its runtime is not installed, or for Vulkan where there is no device."""
    verdict = available_backends()[spec.backend]
    if verdict != "ready":
        pytest.skip(verdict)
    try:
        return open_device(spec)
    except DeviceError as missing:
        if spec.options.get("target") == "vulkan":
            pytest.skip(str(missing))
        raise


@pytest.fixture
def device_for(
    serve_part: Callable[[Part], Endpoints], open_remote: Callable[..., Device], request: pytest.FixtureRequest
) -> OpenFor:
    """Return a function that opens the device of a backend on which a part can run."""

    def opened(backend: str, part: Part) -> Device:
        if backend in LOCAL:
            return open_here(LOCAL[backend])
        if backend == "ray":
            address = request.getfixturevalue("ray_cluster").address
            return open_device(DeviceSpec("far", "ray", {"address": address}))
        endpoints = serve_part(part)
        return open_remote(endpoints.grpc_url if backend == "remote-grpc" else endpoints.http_url)

    return opened


def expected_outputs(part: Part, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Compute a part by ONNX's reference implementation."""
    values = ReferenceEvaluator(part.proto).run(None, inputs)
    return {tensor.name: np.asarray(value) for tensor, value in zip(part.outputs, values, strict=True)}


def assert_conforms(executable: Executable, part: Part, inputs: dict[str, np.ndarray]) -> None:
    """Fail unless the executable's outputs agree with the reference."""
    problem = difference(expected_outputs(part, inputs), executable.run(inputs))
    assert problem is None, problem


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("part_name", sorted(PARTS))
def test_backend_computes_the_reference(backend: str, part_name: str, device_for: OpenFor) -> None:
    """A backend's outputs agree with the reference in names, dtypes, shapes and values, for batches of 1 and 3."""
    part = PARTS[part_name]()
    device = device_for(backend, part)
    if (refused := device.supports(part)) and backend == "iree-vulkan":
        pytest.skip(refused[0].reason)  # a Vulkan device need not have 64-bit floats
    assert refused == []
    executable = device.compile(part)
    assert (executable.inputs, executable.outputs) == (part.inputs, part.outputs)
    for batch in (1, 3):
        inputs = random_inputs(part, batch=batch, seed=batch)
        assert_conforms(executable, part, inputs)
        assert all(array.flags.writeable for array in executable.run(inputs).values())
    executable.close()
    executable.close()
    device.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_and_infinity_pass(backend: str, device_for: OpenFor) -> None:
    """NaN and infinities arrive as they are, in both directions."""
    part = PARTS["fixed"]()
    executable = device_for(backend, part).compile(part)
    inputs = {"x": np.array([[np.nan, np.inf, -np.inf], [0.0, -0.0, 1e-45]], np.float32)}
    found = executable.run(inputs)["y"]
    np.testing.assert_array_equal(found[0], np.array([np.nan, 1.0, -1.0], np.float32))
    executable.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_run_accepts_arrays_that_are_not_contiguous(backend: str, device_for: OpenFor) -> None:
    """A transposed view gives what its copy gives."""
    part = conv_part()
    executable = device_for(backend, part).compile(part)
    view = np.random.default_rng(5).standard_normal((8, 8, 3, 2)).astype(np.float32).transpose(3, 2, 1, 0)
    assert_conforms(executable, part, {"x": view})
    executable.close()


class Altered:
    """An executable that gets one thing wrong."""

    def __init__(self, inner: Executable, alter: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
        self.inputs = inner.inputs
        self.outputs = inner.outputs
        self._inner = inner
        self._alter = alter

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run, and spoil the outcome."""
        return self._alter(self._inner.run(inputs))

    def close(self) -> None:
        """Close the inner executable."""
        self._inner.close()


def _one_value(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    outputs["y"].flat[7] += 0.01
    return outputs


WRONGS: dict[str, Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]] = {
    "one value off by a hundredth": _one_value,
    "one NaN": lambda outputs: {"y": np.where(outputs["y"] == outputs["y"].max(), np.nan, outputs["y"])},
    "another dtype": lambda outputs: {"y": outputs["y"].astype(np.float64)},
    "another shape": lambda outputs: {"y": outputs["y"][:, :, None]},
    "another name": lambda outputs: {"z": outputs["y"]},
    "one output too many": lambda outputs: {**outputs, "z": outputs["y"]},
    "nothing": lambda _: {},
}


@pytest.mark.parametrize("wrong", sorted(WRONGS))
def test_comparison_fails_for_a_wrong_executable(wrong: str) -> None:
    """The table can fail: an executable that errs in one way only is found out."""
    part = conv_part()
    inputs = random_inputs(part)
    executable = open_device(DeviceSpec("cpu")).compile(part)
    assert_conforms(executable, part, inputs)
    with pytest.raises(AssertionError):
        assert_conforms(Altered(executable, WRONGS[wrong]), part, inputs)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["int64", "bool", "float16"])
def test_comparison_sees_one_value_in_every_dtype(dtype: str) -> None:
    """One changed value is a difference in integers, booleans and half precision too."""
    expected = np.array([0, 1, 1], dtype)
    assert difference({"y": expected}, {"y": expected.copy()}) is None
    found = np.array([0, 1, 0], dtype)
    assert difference({"y": expected}, {"y": found}) is not None
