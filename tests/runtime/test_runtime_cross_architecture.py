"""One bundle on two architectures: x86-64 here, aarch64 under QEMU's user emulation."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from runtime_deployments import deploy, images

import siniantrust as st
from siniantrust.bundle import load_bundle
from siniantrust.graph import Part
from siniantrust.odla import Artifact, DeviceSpec, available_backends, open_part
from siniantrust.odla._compare import difference

LIBRARIES = Path("/usr/aarch64-linux-gnu")
HERE = DeviceSpec("cloud", "iree", {"cpu": "generic"})
BOARD = DeviceSpec("cloud", "iree", {"triple": "aarch64-linux-gnu"})


@pytest.fixture(scope="module")
def runner() -> list[str]:
    """Return the command that runs IREE's aarch64 runtime here; skip where a piece of it is missing."""
    if available_backends()["iree"] != "ready" or platform.machine() != "x86_64":
        pytest.skip("needs IREE on x86-64")
    site = os.environ.get("SINIAN_AARCH64")
    program = Path(site or "missing") / "iree" / "_runtime_libs" / "iree-run-module"
    if site is None or not program.is_file():
        pytest.skip("no aarch64 runtime of IREE; run: make .venvs/aarch64/.installed, and set SINIAN_AARCH64")
    emulator = shutil.which("qemu-aarch64")
    if emulator is None or not LIBRARIES.is_dir():
        pytest.skip("no QEMU; run: apt-get install qemu-user libc6-arm64-cross libstdc++6-arm64-cross")
    return [emulator, "-L", str(LIBRARIES), str(program), "--device=local-sync"]


def run_there(
    runner: list[str], part: Part, artifact: Artifact, inputs: Mapping[str, np.ndarray], folder: Path
) -> dict[str, np.ndarray]:
    """Run an artefact under the emulator."""
    (folder / "module.vmfb").write_bytes(artifact.data)
    given = []
    for index, tensor in enumerate(part.inputs):
        np.save(folder / f"in{index}.npy", inputs[tensor.name])
        given.append(f"--input=@{folder}/in{index}.npy")
    wanted = [f"--output=@{folder}/out{index}.npy" for index in range(len(part.outputs))]
    command = [*runner, f"--module={folder}/module.vmfb", "--function=main", *given, *wanted]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    return {tensor.name: np.load(folder / f"out{index}.npy") for index, tensor in enumerate(part.outputs)}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_bundle_runs_on_two_architectures(runner: list[str], tmp_path: Path) -> None:
    """The untrusted part of one bundle computes the same on x86-64 and, from its other artefact, on aarch64."""
    given = deploy(images(), tmp_path, cut="r0")
    out = tmp_path / "both"
    st.build(
        given.model,
        given.plan,
        out,
        audit=given.audit_folder,
        keystore=given.keystore,
        ahead_of_time=[HERE, BOARD],
    )
    bundle = load_bundle(out, keystore=given.keystore)
    part = next(each for each in bundle.parts if isinstance(each, Part))
    here, board = bundle.artifacts[part.name]
    assert (here.target, board.target) == ("llvm-cpu/x86_64/generic", "llvm-cpu/aarch64/generic")
    generator = np.random.default_rng(4)
    inputs = {
        tensor.name: generator.standard_normal((3, *tensor.shape[1:])).astype(tensor.dtype) for tensor in part.inputs
    }
    _, executable = open_part(HERE, part, artifacts=bundle.artifacts[part.name])
    local = executable.run(inputs)
    emulated = run_there(runner, part, board, inputs, tmp_path)
    assert difference(local, emulated) is None
    _, reference = open_part(DeviceSpec("cloud"), part)
    assert difference(reference.run(inputs), emulated) is None
    for name, array in local.items():
        print(f"{name}: largest difference {np.abs(array - emulated[name]).max():.3g}")  # noqa: T201 - shown by -s
