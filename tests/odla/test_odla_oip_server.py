"""Our server of the Open Inference Protocol, asked by hand."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from odla_parts import conv_part, fixed_part, gemm_part, half_part, random_inputs, save

from siniantrust._files import sha256_file
from siniantrust.errors import BundleError, DeviceError
from siniantrust.graph import Part
from siniantrust.odla import DeviceSpec, open_device
from siniantrust.odla.oip import Endpoints, Server
from siniantrust.odla.oip import _methods as methods
from siniantrust.odla.oip import open_inference_pb2 as pb

Serve = Callable[..., Endpoints]


def ask(
    endpoints: Endpoints, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Send one HTTP request; underscores in header names stand for hyphens."""
    connection = http.client.HTTPConnection(endpoints.http_url.removeprefix("http://"), timeout=20)
    try:
        connection.request(method, path, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def ask_json(endpoints: Endpoints, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Send JSON, receive JSON."""
    status, _, answer = ask(endpoints, method, path, None if body is None else json.dumps(body).encode())
    return status, json.loads(answer)


def call(endpoints: Endpoints, method: methods.Method, message: Any) -> Any:
    """Call one gRPC method; ``message`` is a message or raw bytes."""
    data = message if isinstance(message, bytes) else message.SerializeToString()
    with grpc.insecure_channel(endpoints.grpc_url.removeprefix("grpc://")) as channel:
        return method.response.FromString(channel.unary_unary(method.path)(data, timeout=20))


def folder_of(part: Part, folder: Path, **changes: Any) -> Path:
    """Write a part as a folder with ``part.json``; ``changes`` override what that says."""
    save(part, folder).rename(folder / "model.onnx")
    said = {
        "name": part.name,
        "sha256": sha256_file(folder / "model.onnx"),
        "inputs": [{"name": tensor.name, "dtype": tensor.dtype} for tensor in part.inputs],
        "outputs": [tensor.name for tensor in part.outputs],
        **changes,
    }
    (folder / "part.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


def test_rest_says_what_it_serves(serve_part: Serve) -> None:
    """Liveness, readiness and metadata come on the paths of the specification; free dimensions are -1."""
    endpoints = serve_part(conv_part())
    assert ask_json(endpoints, "GET", "/v2/health/live") == (200, {"live": True})
    assert ask_json(endpoints, "GET", "/v2/health/ready") == (200, {"ready": True})
    status, server = ask_json(endpoints, "GET", "/v2")
    assert (status, server["name"], server["extensions"]) == (200, "siniantrust", ["binary_tensor_data"])
    assert ask_json(endpoints, "GET", "/v2/models/conv/ready") == (200, {"name": "conv", "ready": True})
    status, metadata = ask_json(endpoints, "GET", f"/v2/models/conv/versions/{endpoints.models['conv']}")
    assert status == 200
    assert metadata["versions"] == [endpoints.models["conv"]]
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3, 8, 8]}]
    assert metadata["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 8, 8, 8]}]


def test_version_is_the_sha256_of_the_file(serve_part: Serve, tmp_path: Path) -> None:
    """The model's version in metadata and answers is the SHA-256 of its ONNX file."""
    part = gemm_part()
    endpoints = serve_part(part)
    assert endpoints.models["gemm"] == sha256_file(save(part, tmp_path / "again"))
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 6], "data": [0] * 6}]}
    status, answer = ask_json(endpoints, "POST", "/v2/models/gemm/infer", body)
    assert (status, answer["model_name"], answer["model_version"]) == (200, "gemm", endpoints.models["gemm"])


def test_rest_infers_from_flat_and_nested_json(serve_part: Serve) -> None:
    """JSON tensors in either form give the part's outputs; the request's id comes back."""
    part = gemm_part()
    endpoints = serve_part(part)
    inputs = random_inputs(part, batch=2)
    expected = open_device(DeviceSpec("cpu")).compile(part).run(inputs)["y"]
    for data in (inputs["x"].ravel().tolist(), inputs["x"].tolist()):
        body = {"id": "42", "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 6], "data": data}]}
        status, answer = ask_json(endpoints, "POST", "/v2/models/gemm/infer", body)
        assert (status, answer["id"]) == (200, "42")
        (output,) = answer["outputs"]
        assert (output["name"], output["datatype"], output["shape"]) == ("y", "FP32", [2, 4])
        np.testing.assert_allclose(np.reshape(output["data"], (2, 4)), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "ask_for",
    [{"outputs": [{"name": "y", "parameters": {"binary_data": True}}]}, {"parameters": {"binary_data_output": True}}],
)
def test_rest_infers_from_binary_tensors(serve_part: Serve, ask_for: dict[str, Any]) -> None:
    """The binary tensor data extension works both ways, for half precision too."""
    part = half_part()
    endpoints = serve_part(part)
    raw = np.arange(9, dtype="<f2").tobytes()
    entry = {"name": "x", "datatype": "FP16", "shape": [1, 9], "parameters": {"binary_data_size": 18}}
    header = json.dumps({"inputs": [entry], **ask_for}).encode()
    path = "/v2/models/part/infer"
    status, headers, answer = ask(
        endpoints, "POST", path, header + raw, Inference_Header_Content_Length=str(len(header))
    )
    length = int({name.lower(): value for name, value in headers.items()}["inference-header-content-length"])
    assert status == 200
    assert json.loads(answer[:length])["outputs"][0]["parameters"] == {"binary_data_size": 18}
    np.testing.assert_array_equal(np.frombuffer(answer[length:], "<f2"), np.arange(9))


GOOD = {"name": "x", "datatype": "FP32", "shape": [1, 6], "data": [0] * 6}
BAD_INPUTS = {
    "shape": ({**GOOD, "shape": [1, 5], "data": [0] * 5}, "cannot take an array of shape"),
    "count": ({**GOOD, "data": [0] * 5}, "takes 6 elements, found 5"),
    "dtype": ({**GOOD, "datatype": "FP64"}, "'x' must be float32, found float64"),
    "datatype": ({**GOOD, "datatype": "FLOAT"}, "datatype 'FLOAT' is not one of"),
    "name": ({**GOOD, "name": "z"}, "'x' is missing"),
    "data": ({**GOOD, "data": "AAAA"}, "'data' must be a list"),
}


@pytest.mark.parametrize("case", sorted(BAD_INPUTS))
def test_rest_refuses_inputs_that_do_not_fit(serve_part: Serve, case: str) -> None:
    """Another shape, count, dtype or name is a 400 with one line that names the tensor."""
    entry, message = BAD_INPUTS[case]
    status, answer = ask_json(serve_part(gemm_part()), "POST", "/v2/models/gemm/infer", {"inputs": [entry]})
    assert status == 400
    assert message in answer["error"]
    assert "\n" not in answer["error"]


def test_rest_refuses_unknown_models_outputs_paths_and_methods(serve_part: Serve) -> None:
    """Another model or version is a 404, another output a 400, another path or method a 404 or 405."""
    endpoints = serve_part(gemm_part())
    status, answer = ask_json(endpoints, "GET", "/v2/models/other")
    assert (status, answer["error"]) == (404, "model 'other' is not served here; this server has 'gemm'")
    assert ask_json(endpoints, "GET", "/v2/models/gemm/versions/1/ready")[0] == 404
    status, answer = ask_json(
        endpoints, "POST", "/v2/models/gemm/infer", {"inputs": [GOOD], "outputs": [{"name": "z"}]}
    )
    assert (status, answer["error"]) == (400, "output 'z' is not one of the model's; it has y")
    assert ask_json(endpoints, "GET", "/v3")[0] == 404
    assert ask_json(endpoints, "GET", "/v2/models/gemm/infer")[0] == 405
    assert ask(endpoints, "POST", "/v2/models/gemm/infer", b"\xff\xfe")[0] == 400


def test_rest_refuses_nan_as_json_but_not_as_binary(serve_part: Serve) -> None:
    """An output with NaN cannot be JSON: a 400 that says to ask for binary."""
    endpoints = serve_part(fixed_part())
    entry = {"name": "x", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": 24}}
    header = json.dumps({"inputs": [entry]}).encode()
    body = header + np.full(6, np.nan, "<f4").tobytes()
    path = "/v2/models/part/infer"
    status, _, answer = ask(endpoints, "POST", path, body, Inference_Header_Content_Length=str(len(header)))
    assert status == 400
    assert "NaN or infinity, which JSON cannot carry" in json.loads(answer)["error"]


def test_messages_beyond_the_limit_are_refused(serve_part: Serve) -> None:
    """Both protocols refuse a request that is larger than the limit, announced or not."""
    endpoints = serve_part(gemm_part(), max_message_bytes=1000)
    path = "/v2/models/gemm/infer"
    assert ask(endpoints, "POST", path, b" " * 2000)[0] == 413
    connection = http.client.HTTPConnection(endpoints.http_url.removeprefix("http://"), timeout=20)
    connection.request(
        "POST", path, body=iter([b" " * 600] * 4), encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
    )
    assert connection.getresponse().status == 413
    connection.close()
    message = pb.ModelInferRequest(model_name="gemm", raw_input_contents=[b"0" * 2000])
    with pytest.raises(grpc.RpcError) as caught:
        call(endpoints, methods.MODEL_INFER, message)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def infer_message(**changes: Any) -> Any:
    """Return a valid gRPC request for the gemm part with some fields of its input changed."""
    message = pb.ModelInferRequest(model_name="gemm", raw_input_contents=[bytes(24)])
    message.inputs.add(**{"name": "x", "datatype": "FP32", "shape": [1, 6], **changes})
    return message


def test_grpc_infers_from_raw_and_typed_contents(serve_part: Serve) -> None:
    """Raw and typed tensors give the same outputs, always raw."""
    endpoints = serve_part(gemm_part())
    raw = call(endpoints, methods.MODEL_INFER, infer_message())
    message = infer_message(contents=pb.InferTensorContents(fp32_contents=[0] * 6))
    del message.raw_input_contents[:]
    typed = call(endpoints, methods.MODEL_INFER, message)
    assert raw.outputs == typed.outputs
    assert raw.raw_output_contents == typed.raw_output_contents
    assert (raw.model_name, raw.model_version) == ("gemm", endpoints.models["gemm"])


@pytest.mark.parametrize(
    ("method", "message", "code"),
    [
        (methods.MODEL_INFER, infer_message(shape=[1, 5]), "INVALID_ARGUMENT"),
        (methods.MODEL_INFER, infer_message(datatype="FP64"), "INVALID_ARGUMENT"),
        (methods.MODEL_INFER, infer_message(name="z"), "INVALID_ARGUMENT"),
        (methods.MODEL_INFER, b"\xff\xff\xff", "INVALID_ARGUMENT"),
        (methods.MODEL_INFER, pb.ModelInferRequest(model_name="other"), "NOT_FOUND"),
        (methods.MODEL_METADATA, pb.ModelMetadataRequest(name="gemm", version="1"), "NOT_FOUND"),
        (methods.MODEL_READY, pb.ModelReadyRequest(name="other"), "NOT_FOUND"),
    ],
)
def test_grpc_refuses_by_status_code(serve_part: Serve, method: methods.Method, message: Any, code: str) -> None:
    """Another model is NOT_FOUND, anything that does not fit or parse INVALID_ARGUMENT, in one line."""
    with pytest.raises(grpc.RpcError) as caught:
        call(serve_part(gemm_part()), method, message)
    assert caught.value.code().name == code
    assert "\n" not in caught.value.details()


def test_port_in_use_is_named(serve_part: Serve, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A port that somebody has is a DeviceError with its number for either protocol, and nothing is left running."""
    path = save(gemm_part(), tmp_path / "second")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for option in ("http_port", "grpc_port"):
            with pytest.raises(DeviceError, match=f"port {port}: it is in use"):
                Server(path, **{option: port}).start()
    endpoints = serve_part(gemm_part())
    for option, url in (("http_port", endpoints.http_url), ("grpc_port", endpoints.grpc_url)):
        port = int(url.rpartition(":")[2])
        with pytest.raises(DeviceError, match=f"port {port}: it is in use"):
            Server(path, **{option: port}).start()  # type: ignore[arg-type]
    assert capfd.readouterr().err == ""
    with pytest.raises(DeviceError, match=r"cannot listen on 192\.0\.2\.1"):
        Server(path, host="192.0.2.1").start()


def test_folder_is_served_by_its_name(tmp_path: Path) -> None:
    """A folder with model.onnx and part.json is served under the name in it, and starts again after a stop."""
    server = Server(folder_of(gemm_part(name="head"), tmp_path / "part2"))
    for _ in range(2):
        with server as endpoints:
            assert list(endpoints.models) == ["head"]
            assert ask(endpoints, "GET", "/v2/models/head/ready")[0] == 200
            with pytest.raises(DeviceError, match="runs already"):
                server.start()
    server.stop()


def test_a_bundle_is_served_under_many_names(tmp_path: Path) -> None:
    """Untrusted parts and exchanges below a folder are models of their own; a trusted part is none of them."""
    folder_of(gemm_part(name="head"), tmp_path / "part2")
    folder_of(conv_part(name="padded"), tmp_path / "part1" / "exchange0")
    (tmp_path / "part1" / "part.json").write_text(
        json.dumps({"name": "secret", "sha256": "", "inputs": [], "outputs": [], "trusted": True}), encoding="utf-8"
    )
    with Server(tmp_path) as endpoints:
        assert sorted(endpoints.models) == ["head", "padded"]
        for name, version in endpoints.models.items():
            status, found = ask_json(endpoints, "GET", f"/v2/models/{name}")
            assert (status, found["versions"]) == (200, [version])
            metadata = call(endpoints, methods.MODEL_METADATA, pb.ModelMetadataRequest(name=name, version=version))
            assert (metadata.name, list(metadata.versions)) == (name, [version])
        status, answer = ask_json(endpoints, "GET", "/v2/models/secret")
        assert (status, answer["error"]) == (404, "model 'secret' is not served here; this server has 'padded', 'head'")
        message = infer_message()
        message.model_name = "head"
        assert call(endpoints, methods.MODEL_INFER, message).model_version == endpoints.models["head"]
        assert ask_json(endpoints, "POST", "/v2/models/padded/infer", {"inputs": [GOOD]})[0] == 400


def test_two_parts_of_one_name_are_refused(tmp_path: Path) -> None:
    """A name stands for one part only."""
    for folder in ("part1", "part2"):
        folder_of(gemm_part(name="head"), tmp_path / folder)
    with pytest.raises(BundleError, match="two parts are named 'head'"):
        Server(tmp_path).start()


def test_one_bad_part_keeps_a_bundle_from_being_served(tmp_path: Path) -> None:
    """A server does not begin with half of what it was given."""
    folder_of(gemm_part(name="head"), tmp_path / "part2")
    folder_of(conv_part(name="tail"), tmp_path / "part3", sha256="0" * 64)
    with pytest.raises(BundleError, match=r"not the part that part\.json names"):
        Server(tmp_path).start()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, "not the part that part.json names: sha256 0000"),
        ({"inputs": ["z"]}, r"inputs \['x'\] differ from part.json's \['z'\]"),
        ({"outputs": []}, r"outputs \['y'\] differ"),
        ({"name": 3}, "part.json: name:"),
        ({"name": "a/b"}, "'a/b' does not do as a model name"),
        ({"inputs": [{"dtype": "x"}]}, "part.json: inputs.0"),
        ({"trusted": True}, "is a trusted part: it runs in its enclave only"),
    ],
)
def test_folder_that_contradicts_itself_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """A part.json that is malformed or does not fit the file beside it is a BundleError."""
    with pytest.raises(BundleError, match=message):
        Server(folder_of(gemm_part(), tmp_path / "part", **changes)).start()


def test_flipped_byte_is_refused(tmp_path: Path) -> None:
    """One changed byte of model.onnx is found by its SHA-256."""
    folder = folder_of(gemm_part(), tmp_path / "part")
    data = bytearray((folder / "model.onnx").read_bytes())
    data[-5] ^= 1
    (folder / "model.onnx").write_bytes(data)
    with pytest.raises(BundleError, match="sha256"):
        Server(folder).start()


def test_files_that_cannot_be_served_are_refused(tmp_path: Path) -> None:
    """A missing file, one that is not ONNX, one with weights elsewhere: each a BundleError that names the file."""
    with pytest.raises(BundleError, match=r"none.onnx cannot be read: No such file"):
        Server(tmp_path / "none.onnx").start()
    (tmp_path / "junk.onnx").write_bytes(b"\xff" * 50)
    with pytest.raises(BundleError, match=r"junk.onnx is not an ONNX model"):
        Server(tmp_path / "junk.onnx").start()
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match=r"empty holds no part to serve"):
        Server(tmp_path / "empty").start()
    path = tmp_path / "outside.onnx"
    onnx.save(conv_part().proto, path, save_as_external_data=True, size_threshold=0)
    with pytest.raises(BundleError, match="keeps weights in other files"):
        Server(path).start()


def test_unsafe_listening_is_warned_of(tmp_path: Path) -> None:
    """Beyond loopback the operator is told that there is no TLS and no token; on loopback there is nothing to tell."""
    path = save(gemm_part(), tmp_path)
    with Server(path) as endpoints:
        assert endpoints.warnings == ()
    with Server(path, host="0.0.0.0") as endpoints:  # noqa: S104 - what the warning is about
        assert len(endpoints.warnings) == 2
        assert "without TLS" in endpoints.warnings[0]
        assert "without a token" in endpoints.warnings[1]


def test_serve_runs_until_a_signal(tmp_path: Path) -> None:
    """The blocking form answers, and ends well on SIGTERM."""
    path = save(gemm_part(), tmp_path)
    code = (
        "import sys, pathlib\n"
        "from siniantrust.odla.oip import serve\n"
        "ready = lambda found: print(found.http_url, flush=True)\n"
        "serve(pathlib.Path(sys.argv[1]), http_port=0, grpc_port=0, ready=ready)\n"
        "print('stopped')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=20):
            pass
        os.kill(process.pid, signal.SIGTERM)
        rest, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, rest.strip()) == (0, "stopped")
