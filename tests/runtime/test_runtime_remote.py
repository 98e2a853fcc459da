from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from planner_models import chain_model
from runtime_deployments import Deployment, deploy, images, vectors

from siniantrust.errors import DeviceError, DeviceLostError
from siniantrust.odla import DeviceSpec

pytest.importorskip("grpc", reason="the extra 'serve' is not installed")
pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")

from siniantrust.odla.oip import Server


def _at(url: str) -> dict[str, DeviceSpec]:
    return {"cloud": DeviceSpec("cloud", backend="remote", options={"url": url})}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_server_computes_what_the_device_would(image_deployment: Deployment, protocol: str) -> None:
    """With part 2 at a server, the outputs are those of the uncut model over either protocol."""
    with Server(image_deployment.path / "part2") as served:
        url = served.grpc_url if protocol == "grpc" else served.http_url
        with image_deployment.open(_at(url)) as session:
            (info,) = session.device_infos()
            assert (info.name, info.backend) == ("cloud", "remote")
            for batch in (1, 3):
                inputs = image_deployment.inputs(batch, seed=batch)
                expected = image_deployment.expected(inputs)["scores"]
                np.testing.assert_allclose(session.run(inputs)["scores"], expected, atol=1e-5)


def test_a_lost_server_is_named_and_found_again(vector_deployment: Deployment) -> None:
    """While the server is away calls fail with its name; when it is back on its port the next call is answered."""
    port = _free_port()
    inputs = vector_deployment.inputs(2)
    expected = vector_deployment.expected(inputs)["t7"]
    part = vector_deployment.path / "part2"
    with Server(part, grpc_port=port) as served:
        url = served.grpc_url
        session = vector_deployment.open(_at(url))
        np.testing.assert_allclose(session.run(inputs)["t7"], expected, atol=1e-5)
    with session:
        for _ in range(2):
            with pytest.raises(DeviceLostError, match=f"device 'cloud', part 'part2': {url}"):
                session.run(inputs)
        with Server(part, grpc_port=port):
            np.testing.assert_allclose(session.run(inputs)["t7"], expected, atol=1e-5)


def test_another_model_that_takes_the_place_is_refused(vector_deployment: Deployment, tmp_path: Path) -> None:
    """A server that comes back with other weights gets nothing private: the session refuses it."""
    other = deploy(chain_model(12), tmp_path, cut="t3")
    port = _free_port()
    with Server(vector_deployment.path / "part2", grpc_port=port) as served:
        session = vector_deployment.open(_at(served.grpc_url))
        session.run(vector_deployment.inputs())
    with session:
        with pytest.raises(DeviceLostError):
            session.run(vector_deployment.inputs())
        with (
            Server(other.path / "part2", grpc_port=port),
            pytest.raises(DeviceError, match="device 'cloud', part 'part2': model"),
        ):
            session.run(vector_deployment.inputs())


def test_a_server_with_another_model_is_refused_at_once(vector_deployment: Deployment, tmp_path: Path) -> None:
    """No session opens with a device that serves something else."""
    other = deploy(images(), tmp_path, cut="r0")
    with (
        Server(other.path / "part2") as served,
        pytest.raises(DeviceError, match="device 'cloud', part 'part2': model 'part2' at grpc"),
    ):
        vector_deployment.open(_at(served.grpc_url))


def test_a_server_that_is_not_there_is_refused_at_once(vector_deployment: Deployment) -> None:
    """No session opens with a device that does not answer."""
    with pytest.raises(DeviceLostError, match=r"device 'cloud', part 'part2': grpc://.* does not answer"):
        vector_deployment.open(_at(f"grpc://127.0.0.1:{_free_port()}"))


@contextmanager
def _serving(part: Path) -> Iterator[str]:
    """Run ``sinian serve`` in a process of its own; yield its gRPC address."""
    command = [sys.executable, "-c", "import sys; from siniantrust.cli import main; sys.exit(main())", "serve"]
    options = ["--http-port", "0", "--grpc-port", str(_free_port()), "--threads", "1"]
    with subprocess.Popen([*command, str(part), *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"grpc://[\w.:]+", process.stdout.readline())
            assert found is not None
            yield found[0]
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


def test_edge_and_cloud_in_two_processes_give_the_uncut_models_outputs(tmp_path: Path) -> None:
    """The edge with its enclave and the cloud as ``sinian serve`` answer 1,000 inputs as the uncut model does."""
    deployment = deploy(vectors(), tmp_path, cut="t3")
    inputs = deployment.inputs(1000)
    with _serving(deployment.path / "part2") as url, deployment.open(_at(url)) as session:
        found = session.run_batched(inputs)["t7"]
    expected = deployment.expected(inputs)["t7"]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-5
