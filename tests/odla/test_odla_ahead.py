"""Artefacts that were compiled ahead of time: they load where they belong, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from odla_parts import conv_part, gemm_part, random_inputs

from siniantrust.errors import DeviceError
from siniantrust.odla import (
    Artifact,
    Device,
    DeviceSpec,
    available_backends,
    export_part,
    load_artifact,
    memory_use,
    open_device,
    open_part,
)
from siniantrust.odla._compare import difference

BACKENDS = ["onnxruntime", "openvino", "torch", pytest.param("iree", marks=pytest.mark.slow)]


def opened(backend: str) -> Device:
    """Open a backend's device for this processor; skip where its runtime is not installed."""
    verdict = available_backends()[backend]
    if verdict != "ready":
        pytest.skip(verdict)
    return open_device(DeviceSpec("npu", backend))


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    """Return the convolutions as ONNX Runtime optimised them."""
    return export_part(opened("onnxruntime"), conv_part())


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_artefact_computes_what_the_part_computes(backend: str) -> None:
    """What was exported loads on another device of the same kind, for any batch, and says what memory it takes."""
    part = conv_part()
    made = export_part(opened(backend), part)
    assert (made.backend, made.part, len(made.part_sha256)) == (backend, "conv", 64)
    executable = load_artifact(opened(backend), part, [made])
    for batch in (1, 3):
        inputs = random_inputs(part, batch=batch)
        expected = open_device(DeviceSpec("cpu")).compile(part).run(inputs)
        assert difference(expected, executable.run(inputs)) is None
    assert (memory_use(executable).resident_bytes or 0) > 0
    executable.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"part_sha256": "0" * 64}, "was made from part '000000000000', expected"),
        ({"backend": "openvino"}, "was made by backend 'openvino', expected 'onnxruntime'"),
        ({"version": "0.1"}, "was made by version '0.1', expected"),
        ({"target": "riscv64/CPU"}, "was made for 'riscv64/CPU', expected"),
    ],
)
def test_an_artefact_of_something_else_is_an_error(artifact: Artifact, change: dict[str, str], message: str) -> None:
    """Another part, backend, version or target is refused, and the message names device, part and difference."""
    with pytest.raises(DeviceError, match="^device 'npu', part 'conv': the artefact " + message):
        load_artifact(opened("onnxruntime"), conv_part(), [replace(artifact, **change)])  # type: ignore[arg-type]


def test_an_artefact_of_another_part_is_an_error(artifact: Artifact) -> None:
    """A part with other weights does not take it, even under the same name."""
    with pytest.raises(DeviceError, match="part 'conv': the artefact was made from part"):
        load_artifact(opened("onnxruntime"), gemm_part(name="conv"), [artifact])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_damaged_artefact_is_an_error(backend: str) -> None:
    """Bytes that the runtime does not read are refused by name, and nothing is compiled in their place."""
    made = replace(export_part(opened(backend), gemm_part()), data=b"no module")
    with pytest.raises(DeviceError, match=r"^device 'npu', part 'gemm': its artefact does not load"):
        load_artifact(opened(backend), gemm_part(), [made])


def test_the_fitting_one_of_several_is_loaded(artifact: Artifact) -> None:
    """A part may have artefacts for several architectures, and the one for this device is taken."""
    other = replace(artifact, target="aarch64/CPU", data=b"not for us")
    executable = load_artifact(opened("onnxruntime"), conv_part(), [other, artifact])
    assert executable.run(random_inputs(conv_part()))["y"].shape == (1, 8, 8, 8)


def test_a_backend_without_artefacts_says_so() -> None:
    """Exporting on a backend that compiles nothing ahead of time is an error that names it."""
    with pytest.raises(DeviceError, match="backend 'null' compiles nothing ahead of time"):
        export_part(open_device(DeviceSpec("nowhere", "null")), gemm_part())


def test_open_part_leaves_artefacts_of_other_backends_aside(artifact: Artifact) -> None:
    """A device of another backend compiles the part; one of the same backend loads, or refuses."""
    _, executable = open_part(DeviceSpec("npu", "torch"), conv_part(), artifacts=[artifact])
    assert np.isfinite(executable.run(random_inputs(conv_part()))["y"]).all()
    stale = replace(artifact, version="0.1")
    with pytest.raises(DeviceError, match=r"^device 'npu', part 'conv': the artefact was made by version '0\.1'"):
        open_part(DeviceSpec("npu"), conv_part(), artifacts=[stale])


@pytest.mark.slow
def test_iree_compiles_for_another_architecture_and_does_not_run_it() -> None:
    """With another machine's triple IREE exports, and refuses to run or load here."""
    opened("iree")
    device = open_device(DeviceSpec("board", "iree", {"triple": "aarch64-linux-gnu"}))
    made = export_part(device, gemm_part())
    assert made.target == "llvm-cpu/aarch64/generic"
    with pytest.raises(DeviceError, match="compiles for aarch64-linux-gnu, and nothing of that runs here"):
        device.compile(gemm_part())
    with pytest.raises(DeviceError, match="was made for 'llvm-cpu/aarch64/generic', expected"):
        load_artifact(opened("iree"), gemm_part(), [made])
