"""The remote backend against MLServer, which nobody here wrote.

MLServer lives in a virtual environment of its own, since it pins older libraries: its executable is taken from the
environment variable ``SINIAN_MLSERVER`` or from ``.venvs/mlserver/bin/mlserver``.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from odla_parts import gemm_part, random_inputs
from onnx import numpy_helper

from siniantrust.errors import DataError, DeviceError
from siniantrust.odla import Device, DeviceSpec, open_device

ROOT = Path(__file__).parents[2]
SCHEMES = ("grpc", "http")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(found.getsockname()[1]) for found in sockets]
    for found in sockets:
        found.close()
    return ports


def _write_model(folder: Path) -> None:
    folder.mkdir(parents=True)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in gemm_part().proto.graph.initializer}
    np.savez(folder / "weights.npz", w=weights["w"], b=weights["b"])
    shutil.copy(Path(__file__).with_name("odla_mlserver_model.py"), folder)
    settings = {
        "name": "gemm",
        "implementation": "odla_mlserver_model.DenseModel",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 6]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
        "parameters": {"uri": "./weights.npz", "version": "v7"},
    }
    (folder / "model-settings.json").write_text(json.dumps(settings), encoding="utf-8")


def _await_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/gemm/ready", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    pytest.fail(f"MLServer did not start: {log.read_text(encoding='utf-8')[-2000:]}")


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run MLServer with a dense layer and return its URLs."""
    executable = Path(os.environ.get("SINIAN_MLSERVER") or ROOT / ".venvs" / "mlserver" / "bin" / "mlserver")
    if not executable.exists():
        pytest.skip(f"MLServer is not installed: {executable} is missing and SINIAN_MLSERVER names no other")
    folder = tmp_path_factory.mktemp("mlserver")
    _write_model(folder / "gemm")
    http_port, grpc_port, metrics_port = _free_ports(3)
    settings = {
        "host": "127.0.0.1",
        "http_port": http_port,
        "grpc_port": grpc_port,
        "metrics_port": metrics_port,
        "parallel_workers": 0,
    }
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    log = folder / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen([executable, "start", folder], stdout=stream, stderr=stream, cwd=folder)
    try:
        _await_ready(process, http_port, log)
        yield {"grpc": f"grpc://127.0.0.1:{grpc_port}", "http": f"http://127.0.0.1:{http_port}"}
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


OpenRemote = Callable[..., Device]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_part_runs_on_mlserver(scheme: str, urls: dict[str, str], open_remote: OpenRemote) -> None:
    """Our client checks, verifies and runs a model there, in batches, with the local outputs."""
    part = gemm_part()
    device = open_remote(urls[scheme])
    assert device.supports(part) == []
    executable = device.compile(part)
    local = open_device(DeviceSpec("cpu")).compile(part)
    for batch in (1, 5):
        inputs = random_inputs(part, batch=batch)
        found = executable.run(inputs)["y"]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, local.run(inputs)["y"], rtol=1e-5, atol=1e-5)
    executable.close()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_other_weights_on_mlserver_are_refused(scheme: str, urls: dict[str, str], open_remote: OpenRemote) -> None:
    """A model there that computes something else than the part is found out."""
    with pytest.raises(DeviceError, match="does not compute what the part computes"):
        open_remote(urls[scheme]).compile(gemm_part(seed=3))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_mlserver_is_asked_for_a_version(scheme: str, urls: dict[str, str], open_remote: OpenRemote) -> None:
    """The version that it has is accepted, another one and another model are refused."""
    open_remote(urls[scheme], version="v7").compile(gemm_part()).close()
    for options in ({"version": "v8"}, {"model": "other"}):
        with pytest.raises(DeviceError, match=r"not found|HTTP 404"):
            open_remote(urls[scheme], **options).compile(gemm_part())


def test_nan_is_not_sent_as_json(urls: dict[str, str], open_remote: OpenRemote) -> None:
    """MLServer has no binary tensors over REST: NaN is refused before it is sent, and the next call works."""
    executable = open_remote(urls["http"]).compile(gemm_part())
    with pytest.raises(DataError, match="'x' has NaN or infinity, which JSON cannot carry"):
        executable.run({"x": np.full((1, 6), np.nan, np.float32)})
    assert executable.run({"x": np.zeros((1, 6), np.float32)})["y"].shape == (1, 4)
    executable.close()
