"""The remote backend against servers that lie: a ProtocolError or DeviceLostError that names them, never a tensor."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from odla_parts import gemm_part

from siniantrust.errors import DeviceError, DeviceLostError, ProtocolError
from siniantrust.odla import DeviceSpec, Executable, open_device
from siniantrust.odla.oip import _client, _grpc_client, _http
from siniantrust.odla.oip import open_inference_pb2 as pb
from siniantrust.odla.oip._grpc_codec import encode_answer
from siniantrust.odla.oip._messages import InferAnswer
from siniantrust.odla.oip._rest_codec import encode_answer as encode_rest_answer

INPUTS = {"x": np.zeros((1, 6), np.float32)}
RIGHT = {"y": np.zeros((1, 4), np.float32)}


def opened(url: str, **options: Any) -> Executable:
    """Connect without verification: what is tried here is what each answer may be."""
    spec = DeviceSpec("cloud", "remote", {"url": url, "verify": False, "timeout_s": 5, **options})
    return open_device(spec).compile(gemm_part())


@contextmanager
def grpc_server(infer: Callable[[], bytes]) -> Iterator[str]:
    """Serve honest metadata of the gemm part over gRPC, and ``infer()`` as every answer."""
    metadata = pb.ModelMetadataResponse(name="gemm", versions=["1"])
    metadata.inputs.add(name="x", datatype="FP32", shape=[-1, 6])
    metadata.outputs.add(name="y", datatype="FP32", shape=[-1, 4])
    answers: dict[str, Callable[[], bytes]] = {
        "ServerReady": pb.ServerReadyResponse(ready=True).SerializeToString,
        "ModelReady": pb.ModelReadyResponse(ready=True).SerializeToString,
        "ModelMetadata": metadata.SerializeToString,
        "ModelInfer": infer,
    }

    def handler(answer: Callable[[], bytes]) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda _, __: answer())

    server = grpc.server(ThreadPoolExecutor(1))
    table = {name: handler(answer) for name, answer in answers.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", table),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def http_answer(body: bytes, *, status: str = "200 OK", **headers: str) -> bytes:
    """Write an HTTP answer; underscores in header names stand for hyphens."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


METADATA = {
    "name": "gemm",
    "versions": ["1"],
    "platform": "",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 6]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
}
HONEST = {
    "/v2/health/ready": http_answer(b"{}"),
    "/v2/models/gemm/ready": http_answer(b"{}"),
    "/v2": http_answer(json.dumps({"name": "liar", "version": "1", "extensions": ["binary_tensor_data"]}).encode()),
    "/v2/models/gemm": http_answer(json.dumps(METADATA).encode()),
}


@contextmanager
def http_server(infer: Callable[[socket.socket], None], answers: dict[str, bytes] | None = None) -> Iterator[str]:
    """Serve metadata of the gemm part over HTTP, and let ``infer`` answer every inference on the bare socket."""
    listener = socket.create_server(("127.0.0.1", 0))
    answers = HONEST if answers is None else answers

    def converse(peer: socket.socket) -> None:
        with peer, peer.makefile("rb") as stream:
            while request := stream.readline():
                length = 0
                while (line := stream.readline().strip()) != b"":
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                stream.read(length)
                path = request.split()[1].decode()
                if path not in answers:
                    infer(peer)
                    return
                peer.sendall(answers[path])

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            try:
                converse(peer)
            except OSError:
                continue

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


LIES: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "another dtype": ({"y": np.zeros((1, 4))}, r"sent output 'y' as float64\[1, 4\], expected float32\[1, 4\]"),
    "another batch": (
        {"y": np.zeros((2, 4), np.float32)},
        r"sent output 'y' as float32\[2, 4\], expected float32\[1, 4\]",
    ),
    "another rank": ({"y": np.zeros(4, np.float32)}, r"sent output 'y' as float32\[4\]"),
    "another name": ({"z": np.zeros((1, 4), np.float32)}, r"sent outputs \['z'\], expected \['y'\]"),
    "one too many": ({**RIGHT, "z": np.zeros(1)}, r"sent outputs \['y', 'z'\], expected \['y'\]"),
    "none": ({}, r"sent outputs \[\], expected \['y'\]"),
}


@pytest.mark.parametrize("lie", sorted(LIES))
def test_answers_that_do_not_fit_the_part_are_refused(lie: str) -> None:
    """Another dtype, shape, name or number of outputs is a ProtocolError over both protocols."""
    outputs, message = LIES[lie]
    with grpc_server(lambda: encode_answer(InferAnswer("gemm", "1", outputs), id_="")) as url:
        executable = opened(url)
        with pytest.raises(ProtocolError, match=f"model 'gemm' at {url} {message}"):
            executable.run(INPUTS)
        executable.close()
    body, length = encode_rest_answer(InferAnswer("gemm", "1", outputs), id_="", binary=dict.fromkeys(outputs, True))
    headers = {} if length is None else {"Inference_Header_Content_Length": str(length)}
    with http_server(lambda peer: peer.sendall(http_answer(body, **headers))) as url:
        executable = opened(url)
        with pytest.raises(ProtocolError, match=f"model 'gemm' at {url} {message}"):
            executable.run(INPUTS)
        executable.close()


def test_answer_of_another_version_is_refused() -> None:
    """A server that announced version 1 and answers as version 2 has changed its model."""
    with grpc_server(lambda: encode_answer(InferAnswer("gemm", "2", RIGHT), id_="")) as url:
        executable = opened(url)
        with pytest.raises(ProtocolError, match="answered as version '2', expected '1'"):
            executable.run(INPUTS)
        executable.close()


@pytest.mark.parametrize("data", [b"\xff\xff", pb.ModelInferResponse(raw_output_contents=[b""]).SerializeToString()])
def test_garbage_over_grpc_is_refused(data: bytes) -> None:
    """Bytes that are no message, or one that contradicts itself, are a ProtocolError."""
    with grpc_server(lambda: data) as url:
        executable = opened(url)
        with pytest.raises(ProtocolError):
            executable.run(INPUTS)
        executable.close()


GARBAGE = {
    "no JSON": (http_answer(b"<html>"), "do not parse as JSON"),
    "JSON of another kind": (http_answer(b"[1]"), "a JSON object is expected"),
    "header length beyond the body": (http_answer(b"{}", Inference_Header_Content_Length="9"), "does not fit a body"),
    "no HTTP": (b"SSH-2.0-x\r\n\r\n", "does not speak HTTP"),
    "compressed": (http_answer(b"\x1f\x8b", Content_Encoding="gzip"), "compressed answer that nobody asked for"),
    "endless headers": (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n", "does not speak HTTP"),
    "redirect": (http_answer(b"", status="307 Moved", Location="http://192.0.2.1/"), "HTTP 307"),
    "error with escapes": (http_answer(b'{"error": "\\u001b[2J boom"}', status="400 Bad"), r"HTTP 400: \?\[2J boom"),
    "server error": (http_answer(b"trace\nback", status="500 Oops"), "HTTP 500: trace back"),
}


@pytest.mark.parametrize("case", sorted(GARBAGE))
def test_garbage_over_http_is_refused(case: str) -> None:
    """What is no answer of the protocol is an error that says what came instead, in one printable line."""
    data, message = GARBAGE[case]
    with http_server(lambda peer: peer.sendall(data)) as url:
        executable = opened(url)
        with pytest.raises(DeviceError, match=message) as caught:
            executable.run(INPUTS)
        assert str(caught.value).isprintable()
        assert not isinstance(caught.value, DeviceLostError)
        executable.close()


def test_answers_beyond_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is larger than the limit is not read, whether its length is announced or not."""
    for module in (_client, _grpc_client, _http):
        monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 1000)
    big = encode_answer(InferAnswer("gemm", "1", {"y": np.zeros((1, 4000), np.float32)}), id_="")
    with grpc_server(lambda: big) as url:
        executable = opened(url)
        with pytest.raises(ProtocolError, match="more than 1000 bytes"):
            executable.run(INPUTS)
        executable.close()
    endless = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b" " * 5000
    for data in (http_answer(b" " * 2000), endless):
        with http_server(lambda peer, data=data: peer.sendall(data)) as url:  # type: ignore[misc]
            executable = opened(url)
            with pytest.raises(ProtocolError, match="more than 1000"):
                executable.run(INPUTS)
            executable.close()


def test_connection_that_drops_or_drips_is_lost() -> None:
    """Hanging up before or within an answer, saying nothing, or dripping bytes for ever: each is a lost device."""

    def drip(peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(30):
            peer.sendall(b" ")
            time.sleep(0.1)

    cases: list[tuple[Callable[[socket.socket], None], str]] = [
        (lambda peer: peer.sendall(b""), "hung up"),
        (lambda peer: peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12"), "hung up after 2 of 10 bytes"),
        (lambda _: time.sleep(1), "did not answer within 0.5 s"),
        (drip, "did not finish within 0.5 s"),
    ]
    for infer, message in cases:
        with http_server(infer) as url:
            executable = opened(url, timeout_s=0.5)
            with pytest.raises(DeviceLostError, match=f"{url} {message}"):
                executable.run(INPUTS)
            executable.close()


@pytest.mark.parametrize(
    ("path", "answer", "message"),
    [
        ("/v2/health/ready", http_answer(b"{}", status="503 Busy"), "is not ready"),
        ("/v2/models/gemm/ready", http_answer(b"{}", status="400 Bad"), "model 'gemm' at .* is not ready"),
        ("/v2/models/gemm/ready", http_answer(b"{}", status="404 None"), "refused model 'gemm': HTTP 404"),
        ("/v2", http_answer(b'{"extensions": 3}'), "'extensions' must be a list of strings"),
        ("/v2/models/gemm", http_answer(b'{"inputs": [{"name": 3}]}'), "a tensor without a name"),
        ("/v2/models/gemm", http_answer(b'{"inputs": [{"name": "x"}]}'), "'x': shape must be a list of integers"),
        ("/v2/models/gemm", http_answer(b"{}"), "has no input 'x'"),
    ],
    ids=[str(case) for case in range(7)],
)
def test_server_that_is_not_ready_or_lies_of_its_model_is_refused(path: str, answer: bytes, message: str) -> None:
    """What is wrong before the first inference stops the connection."""
    with http_server(lambda _: None, {**HONEST, path: answer}) as url, pytest.raises(DeviceError, match=message):
        opened(url)


def test_model_is_checked_again_after_a_lost_connection() -> None:
    """A server that drops a call and then has another model is found out, although it names no version."""
    answers = {**HONEST, "/v2/models/gemm": http_answer(json.dumps({**METADATA, "versions": []}).encode())}
    body, length = encode_rest_answer(InferAnswer("gemm", "", RIGHT), id_="", binary={"y": True})
    right = http_answer(body, Inference_Header_Content_Length=str(length))
    replies = [b"", right, right]
    with http_server(lambda peer: peer.sendall(replies.pop(0)), answers) as url:
        executable = opened(url)
        with pytest.raises(DeviceLostError, match="hung up"):
            executable.run(INPUTS)
        other = [{"name": "z", "datatype": "FP32", "shape": [-1, 6]}]
        answers["/v2/models/gemm"] = http_answer(json.dumps({**METADATA, "inputs": other}).encode())
        with pytest.raises(DeviceError, match="takes an input 'z' that the part does not have"):
            executable.run(INPUTS)
        answers["/v2/models/gemm"] = HONEST["/v2/models/gemm"]
        assert executable.run(INPUTS)["y"].shape == (1, 4)
        executable.close()


def test_grpc_server_that_is_not_one_is_refused() -> None:
    """A gRPC server without the protocol's methods is refused, not waited for."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(DeviceError, match="UNIMPLEMENTED"):
            opened(f"grpc://127.0.0.1:{port}")
    finally:
        server.stop(None).wait()
