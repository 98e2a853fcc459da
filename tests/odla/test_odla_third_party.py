"""A backend that somebody else wrote, as a package of its own, found by its entry point."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "backend_package"
_USE = """
import json, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from odla_parts import gemm_part, make_part
from onnx import helper
from siniantrust.odla import DeviceSpec, available_backends, list_devices, open_device, open_part
from siniantrust.odla.conformance import node_cases, run_case

port = lambda name: (name, "float32", ["N"])
nodes = [helper.make_node("Mul", ["a", "b"], ["p"]), helper.make_node("Add", ["p", "a"], ["y"])]
part = make_part(nodes, [port("a"), port("b")], [port("y")])
spec = DeviceSpec("desk", "slide-rule")
device, executable = open_part(spec, part)
cases = [case for case in node_cases() if case.name in ("test_mul", "test_add", "test_relu")]
print(json.dumps({
    "state": available_backends()["slide-rule"],
    "listed": [info.description for info in list_devices() if info.backend == "slide-rule"],
    "y": executable.run({"a": np.float32([1, 2]), "b": np.float32([3, 4])})["y"].tolist(),
    "refused": [entry.node for entry in device.supports(gemm_part())],
    "table": {case.name: str(run_case(device, case).outcome) for case in cases},
}))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package into a folder of its own, without a network."""
    folder = tmp_path_factory.mktemp("third-party")
    source = shutil.copytree(PACKAGE, folder / "source")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*command, "--disable-pip-version-check", "--target", str(folder / "site"), str(source)],
        check=True,
        capture_output=True,
    )
    return folder / "site"


def test_an_installed_backend_is_found_listed_and_run(site: Path) -> None:
    """Once installed, a package's backend opens by name, lists its devices, runs parts, and stands the table."""
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", _USE, str(Path(__file__).parent)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert json.loads(done.stdout) == {
        "state": "ready",
        "listed": ["25 cm, bamboo"],
        "y": [4.0, 10.0],
        "refused": ["gemm", "relu"],
        "table": {"test_add": "passed", "test_mul": "passed", "test_relu": "declined"},
    }
