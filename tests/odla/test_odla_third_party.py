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
from siniantrust.odla.conformance import Case, run_case

port = lambda name: (name, "float32", ["N"])
nodes = [helper.make_node("Mul", ["a", "b"], ["p"]), helper.make_node("Add", ["p", "a"], ["y"])]
part = make_part(nodes, [port("a"), port("b")], [port("y")])
spec = DeviceSpec("desk", "slide-rule")
device, executable = open_part(spec, part)

def case(operator, expected, **inputs):
    node = helper.make_node(operator, list(inputs), ["y"])
    given = {name: np.float32(values) for name, values in inputs.items()}
    part = make_part([node], [port(name) for name in inputs], [port("y")])
    return Case(operator, operator, part, "", given, {"y": np.float32(expected)})

cases = [
    case("Mul", [3, 8], a=[1, 2], b=[3, 4]),
    case("Add", [4, 6], a=[1, 2], b=[3, 4]),
    case("Add", [4, 7], a=[1, 2], b=[3, 4]),
    case("Relu", [0, 2], a=[-1, 2]),
]
print(json.dumps({
    "state": available_backends()["slide-rule"],
    "listed": [info.description for info in list_devices() if info.backend == "slide-rule"],
    "y": executable.run({"a": np.float32([1, 2]), "b": np.float32([3, 4])})["y"].tolist(),
    "refused": [entry.node for entry in device.supports(gemm_part())],
    "table": [str(run_case(device, case).outcome) for case in cases],
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
        "table": ["passed", "passed", "failed", "declined"],
    }
