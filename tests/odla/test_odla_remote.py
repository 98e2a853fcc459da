"""The remote backend against our own server: checks before use, lost servers, options, TLS and tokens."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from odla_parts import Port, conv_part, gemm_part, half_part, make_part, random_inputs, save, several_inputs_part
from onnx import helper

from siniantrust.errors import DataError, DeviceError, DeviceLostError
from siniantrust.odla import Device, DeviceSpec, open_device
from siniantrust.odla.oip import Endpoints, Server

Serve = Callable[..., Endpoints]
OpenRemote = Callable[..., Device]
SCHEMES = ("grpc", "http")
VARIABLE = "ODLA_TOKEN"


def url_of(endpoints: Endpoints, scheme: str) -> str:
    """Return the URL of one of a server's protocols."""
    return endpoints.grpc_url if scheme == "grpc" else endpoints.http_url


def port_of(url: str) -> int:
    """Return a URL's port."""
    return int(url.rpartition(":")[2])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_another_model_at_the_server_is_refused(scheme: str, serve_part: Serve, open_remote: OpenRemote) -> None:
    """A model with the same ports but other weights is found out by what it computes."""
    device = open_remote(url_of(serve_part(gemm_part(seed=3)), scheme))
    assert device.supports(gemm_part(seed=3)) == []
    assert "does not compute" in device.supports(gemm_part(seed=2))[0].reason
    with pytest.raises(DeviceError, match=r"model 'gemm' at .* does not compute what the part computes: output 'y'"):
        device.compile(gemm_part(seed=2))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_without_verification_the_digest_is_compared(scheme: str, serve_part: Serve, open_remote: OpenRemote) -> None:
    """With verify=false a server that names its model's SHA-256 must name the part's."""
    device = open_remote(url_of(serve_part(gemm_part(seed=3)), scheme), verify=False)
    with pytest.raises(DeviceError, match=r"has version [0-9a-f]{64}, the part is [0-9a-f]{64}"):
        device.compile(gemm_part(seed=2))
    device.compile(gemm_part(seed=3)).close()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (("q", "float32", ["N", 6]), ("y", "float32", ["N", 6]), "takes an input 'x' that the part does not have"),
        (("x", "float32", ["N", 6]), ("q", "float32", ["N", 6]), r"has no output 'q'; it has \['y'\]"),
        (("x", "float64", ["N", 6]), ("y", "float64", ["N", 6]), r"x float64\[N,6\] is expected, found FP32\[-1, 6\]"),
        (("x", "float32", ["N", 9]), ("y", "float32", ["N", 9]), r"x float32\[N,9\] is expected, found FP32\[-1, 6\]"),
        (("x", "float32", [6]), ("y", "float32", [6]), r"x float32\[6\] is expected, found FP32\[-1, 6\]"),
        (("x", "float32", ["N", 6]), ("y", "float32", ["N", 6]), r"y float32\[N,6\] is expected, found FP32\[-1, 4\]"),
    ],
)
def test_difference_in_ports_is_named(
    scheme: str, x: Port, y: Port, message: str, serve_part: Serve, open_remote: OpenRemote
) -> None:
    """An input, output, dtype or shape that the server's model does not share is named, by supports too."""
    device = open_remote(url_of(serve_part(gemm_part()), scheme), model="gemm")
    part = make_part([helper.make_node("Abs", [x[0]], [y[0]])], [x], [y])
    with pytest.raises(DeviceError, match=f"model 'gemm' at .*{message}"):
        device.compile(part)
    (refusal,) = device.supports(part)
    assert "model 'gemm' at" in refusal.reason


def test_input_that_the_server_lacks_is_named(serve_part: Serve, open_remote: OpenRemote) -> None:
    """A part with an input more than the server's model is refused."""
    device = open_remote(serve_part(gemm_part()).grpc_url, model="gemm")
    inputs: list[Port] = [("x", "float32", ["N", 6]), ("z", "float32", ["N", 6])]
    part = make_part([helper.make_node("Add", ["x", "z"], ["y"])], inputs, [("y", "float32", ["N", 6])])
    with pytest.raises(DeviceError, match=r"has no input 'z'; it has \['x'\]"):
        device.compile(part)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_unknown_model_is_refused(scheme: str, serve_part: Serve, open_remote: OpenRemote) -> None:
    """A model or version that the server does not have is refused with the server's own words."""
    url = url_of(serve_part(gemm_part()), scheme)
    with pytest.raises(DeviceError, match="model 'other' is not served here; this server has 'gemm'"):
        open_remote(url, model="other").compile(gemm_part())
    with pytest.raises(DeviceError, match="has no version '1' here"):
        open_remote(url, version="1").compile(gemm_part())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_inputs_are_checked_before_they_leave(scheme: str, serve_part: Serve, open_remote: OpenRemote) -> None:
    """Inputs that do not fit are a DataError here, not a refusal there."""
    executable = open_remote(url_of(serve_part(gemm_part()), scheme)).compile(gemm_part())
    with pytest.raises(DataError, match="'x' must be float32, found float64"):
        executable.run({"x": np.zeros((1, 6))})
    executable.close()
    with pytest.raises(DeviceError, match="was closed"):
        executable.run(random_inputs(gemm_part()))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_failing_part_is_an_error_and_the_next_call_works(
    scheme: str, serve_part: Serve, open_remote: OpenRemote
) -> None:
    """An operator that fails at the server is a DeviceError with its reason, and does not end the connection."""
    part = several_inputs_part()
    executable = open_remote(url_of(serve_part(part), scheme)).compile(part)
    inputs = random_inputs(part)
    with pytest.raises(DeviceError, match=r"refused model 'part'.*ONNX Runtime failed") as caught:
        executable.run({**inputs, "index": np.array([0, 1, 99])})
    assert not isinstance(caught.value, DeviceLostError)
    assert executable.run(inputs)["y"].shape == (1, 3)
    executable.close()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_nobody_there_is_a_lost_device(scheme: str, open_remote: OpenRemote) -> None:
    """A refused connection is a DeviceLostError that names the URL."""
    device = open_remote(f"{scheme}://127.0.0.1:9")
    with pytest.raises(DeviceLostError, match=rf"{scheme}://127\.0\.0\.1:9 does not answer"):
        device.compile(gemm_part())
    with pytest.raises(DeviceLostError):
        device.supports(gemm_part())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_stopped_server_is_lost_and_found_again(scheme: str, open_remote: OpenRemote, tmp_path: Path) -> None:
    """After a server went away each call says so at once, and when it is back the next call works."""
    part = conv_part()
    path = save(part, tmp_path)
    with Server(path) as endpoints:
        url = url_of(endpoints, scheme)
        executable = open_remote(url).compile(part)
        inputs = random_inputs(part)
        expected = executable.run(inputs)["y"]
    for _ in range(2):
        start = time.monotonic()
        with pytest.raises(DeviceLostError, match=url):
            executable.run(inputs)
        assert time.monotonic() - start < 10
    with Server(path, **{f"{scheme}_port": port_of(url)}):  # type: ignore[arg-type]
        np.testing.assert_array_equal(executable.run(inputs)["y"], expected)
    executable.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("loses_a_call", [True, False])
def test_server_that_comes_back_with_another_model_is_refused(
    scheme: str, open_remote: OpenRemote, tmp_path: Path, *, loses_a_call: bool
) -> None:
    """A stale model behind the same URL never answers unnoticed, whether or not a call failed in between."""
    part = gemm_part()
    with Server(save(part, tmp_path / "right")) as endpoints:
        url = url_of(endpoints, scheme)
        executable = open_remote(url).compile(part)
        inputs = random_inputs(part)
        executable.run(inputs)
    if loses_a_call:
        with pytest.raises(DeviceLostError):
            executable.run(inputs)
    with Server(save(gemm_part(seed=3), tmp_path / "wrong"), **{f"{scheme}_port": port_of(url)}):  # type: ignore[arg-type]
        for _ in range(3):
            with pytest.raises(DeviceError):
                executable.run(inputs)
    executable.close()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_killed_server_is_lost(scheme: str, open_remote: OpenRemote, tmp_path: Path) -> None:
    """A server process that is killed gives a DeviceLostError, not a hang."""
    part = gemm_part()
    code = (
        "import sys, pathlib\n"
        "from siniantrust.odla.oip import serve\n"
        "serve(pathlib.Path(sys.argv[1]), http_port=0, grpc_port=0,\n"
        "      ready=lambda found: print(found.grpc_url, found.http_url, flush=True))\n"
    )
    command = [sys.executable, "-c", code, str(save(part, tmp_path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[SCHEMES.index(scheme)]
        executable = open_remote(url, timeout_s=20).compile(part)
        executable.run(random_inputs(part))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with pytest.raises(DeviceLostError, match=url):
            executable.run(random_inputs(part))
        executable.close()


def test_silent_server_times_out(open_remote: OpenRemote) -> None:
    """A server that accepts and never answers is lost after timeout_s, over gRPC."""
    done = threading.Event()
    server = grpc.server(ThreadPoolExecutor(1))
    handler = grpc.unary_unary_rpc_method_handler(lambda _, __: done.wait(10) and b"")
    name = "inference.GRPCInferenceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"ServerReady": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(DeviceLostError, match="does not answer: DEADLINE_EXCEEDED"):
            open_remote(f"grpc://127.0.0.1:{port}", timeout_s=0.3, verify=False).compile(gemm_part())
    finally:
        done.set()
        server.stop(None).wait()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_threads_may_share_an_executable(scheme: str, serve_part: Serve, open_remote: OpenRemote) -> None:
    """Calls from several threads at once each get their own answer."""
    part = gemm_part()
    executable = open_remote(url_of(serve_part(part), scheme)).compile(part)
    local = open_device(DeviceSpec("cpu")).compile(part)

    def works(seed: int) -> bool:
        inputs = random_inputs(part, batch=1 + seed % 3, seed=seed)
        return np.array_equal(executable.run(inputs)["y"], local.run(inputs)["y"])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(works, range(40)))
    executable.close()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_proxies_of_the_environment_are_not_used(
    scheme: str, serve_part: Serve, open_remote: OpenRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors go to the named host whatever the environment says of proxies."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    open_remote(url_of(serve_part(half_part()), scheme)).compile(half_part()).close()


def test_part_that_cannot_run_here_needs_verify_false(serve_part: Serve, open_remote: OpenRemote) -> None:
    """Where the comparison cannot be made, the error says so and how to go without."""
    nodes = [helper.make_node("Gather", ["table", "x"], ["y"])]
    table = helper.make_tensor("table", 1, [1], [5.0])
    part = make_part(nodes, [("x", "int64", [8])], [("y", "float32", [8])], [table])
    url = serve_part(part).grpc_url
    with pytest.raises(DeviceError, match=r"cannot be compared with the server's model.*verify=false goes without"):
        open_remote(url).compile(part)
    executable = open_remote(url, verify=False).compile(part)
    np.testing.assert_array_equal(executable.run({"x": np.zeros(8, np.int64)})["y"], np.full(8, 5, np.float32))
    executable.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "option 'url' is missing"),
        ({"url": "127.0.0.1:8001"}, "must be grpc://host:port"),
        ({"url": "ftp://host:1"}, "must be grpc://host:port"),
        ({"url": "grpc://host"}, "must be grpc://host:port"),
        ({"url": "grpc://host:99999"}, "must be grpc://host:port"),
        ({"url": "http://user:secret@host:1"}, "must be grpc://host:port"),
        ({"url": "http://host:1/path"}, "must be grpc://host:port"),
        ({"url": "grpc://host:1", "timeout_s": 0}, "'timeout_s' must be a positive number of seconds"),
        ({"url": "grpc://host:1", "timeout_s": "soon"}, "'timeout_s' must be a number of seconds"),
        ({"url": "grpc://host:1", "verify": "maybe"}, "'verify' must be true or false"),
        ({"url": "grpc://host:1", "retries": 3}, "no option 'retries'; it has ca_file, model, timeout_s"),
        ({"url": "grpcs://host:1", "ca_file": "/nowhere.pem"}, "ca_file /nowhere.pem cannot be read"),
        ({"url": "grpcs://host:1", "token_env": "ODLA_NO_SUCH"}, "variable 'ODLA_NO_SUCH' holds no token"),
    ],
)
def test_bad_option_is_named(options: dict[str, Any], message: str) -> None:
    """Each option that is missing, unknown or senseless is refused by name when the device is opened."""
    with pytest.raises(DeviceError, match=message):
        open_device(DeviceSpec("cloud", "remote", options))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make a self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "siniantrust test")])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(built.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


@pytest.mark.parametrize("scheme", SCHEMES)
def test_tls_and_token_protect_a_server(
    scheme: str,
    serve_part: Serve,
    open_remote: OpenRemote,
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over TLS with a token the part runs; without the authority, the token or TLS it does not."""
    monkeypatch.setenv(VARIABLE, "correct horse")
    monkeypatch.setenv("ODLA_WRONG", "battery staple")
    cert, key = certificate
    part = gemm_part()
    endpoints = serve_part(part, tls_cert=cert, tls_key=key, token_env=VARIABLE)
    url = url_of(endpoints, scheme)
    assert url.startswith(f"{scheme}s://")
    executable = open_remote(url, ca_file=str(cert), token_env=VARIABLE).compile(part)
    assert executable.run(random_inputs(part))["y"].shape == (1, 4)
    executable.close()
    for options in ({}, {"token_env": "ODLA_WRONG"}):
        with pytest.raises(DeviceError, match="a bearer token is required") as caught:
            open_remote(url, ca_file=str(cert), **options).compile(part)
        assert "horse" not in str(caught.value)
        assert "staple" not in str(caught.value)
    with pytest.raises(DeviceError, match=r"certificate|CERTIFICATE"):
        open_remote(url, token_env=VARIABLE).compile(part)
    with pytest.raises(DeviceLostError):
        open_remote(url.replace("s://", "://"), timeout_s=5).compile(part)


def test_token_does_not_travel_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token is refused for another host without TLS."""
    monkeypatch.setenv(VARIABLE, "correct horse")
    spec = DeviceSpec("cloud", "remote", {"url": "grpc://192.0.2.1:8001", "token_env": VARIABLE})
    with pytest.raises(DeviceError, match=r"a token would travel to .* in the clear; use grpcs://"):
        open_device(spec)


def test_bad_tls_files_are_refused(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    """A certificate that cannot be read, is no certificate, or comes without its key stops the server."""
    path = save(gemm_part(), tmp_path)
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate", encoding="ascii")
    with pytest.raises(DeviceError, match="go together"):
        Server(path, tls_cert=certificate[0])
    with pytest.raises(DeviceError, match=r"none\.pem cannot be read"):
        Server(path, tls_cert=tmp_path / "none.pem", tls_key=certificate[1]).start()
    with pytest.raises(DeviceError, match="TLS certificate and key do not do"):
        Server(path, tls_cert=junk, tls_key=certificate[1]).start()
