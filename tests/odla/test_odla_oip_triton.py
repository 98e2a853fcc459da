"""Our server, asked by Triton's own clients."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from odla_parts import PARTS, half_part, random_inputs, several_inputs_part

from siniantrust.odla import DeviceSpec, open_device
from siniantrust.odla.oip import Endpoints
from siniantrust.odla.oip._tensors import DATATYPES

Serve = Callable[..., Endpoints]
PROTOCOLS = ("grpc", "http")


@contextmanager
def triton(protocol: str, endpoints: Endpoints) -> Iterator[tuple[Any, Any]]:
    """Yield Triton's client module for a protocol and a client that is connected to our server."""
    try:
        module: Any = importlib.import_module(f"tritonclient.{protocol}")
    except (ImportError, RuntimeError) as missing:
        pytest.skip(f"tritonclient[{protocol}] is not installed: {missing}")
    url = endpoints.grpc_url if protocol == "grpc" else endpoints.http_url
    client = module.InferenceServerClient(url.partition("://")[2])
    try:
        yield module, client
    finally:
        client.close()


def metadata(client: Any, protocol: str, model: str) -> dict[str, Any]:
    """Ask for a model's metadata as plain data."""
    if protocol == "http":
        found: dict[str, Any] = client.get_model_metadata(model)
        return found
    found = client.get_model_metadata(model, as_json=True)
    for tensor in (*found["inputs"], *found["outputs"]):
        tensor["shape"] = [int(extent) for extent in tensor.get("shape", [])]
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_triton_sees_server_and_model(protocol: str, serve_part: Serve) -> None:
    """Health and metadata are what Triton's client expects."""
    endpoints = serve_part(several_inputs_part())
    with triton(protocol, endpoints) as (_, client):
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("part")
        server = client.get_server_metadata()
        assert (server["name"] if protocol == "http" else server.name) == "siniantrust"
        found = metadata(client, protocol, "part")
        assert found["versions"] == [endpoints.models["part"]]
        assert [(t["name"], t["datatype"], t["shape"]) for t in found["inputs"]] == [
            ("a", "FP32", [-1, 5]),
            ("b", "FP32", [-1, 5]),
            ("mask", "BOOL", [-1, 5]),
            ("index", "INT64", [3]),
        ]


# Triton's gRPC client has binary tensors only.
@pytest.mark.parametrize(("protocol", "binary"), [("grpc", True), ("http", True), ("http", False)])
@pytest.mark.parametrize("name", ["conv", "several-inputs", "several-outputs", "double", "scalar"])
def test_triton_infers(protocol: str, name: str, serve_part: Serve, *, binary: bool) -> None:
    """Triton's client gets the part's own outputs, over both protocols, as binary tensors and as JSON."""
    part = PARTS[name]()
    inputs = random_inputs(part, batch=2)
    expected = open_device(DeviceSpec("cpu")).compile(part).run(inputs)
    with triton(protocol, serve_part(part)) as (module, client):
        options = {} if protocol == "grpc" else {"binary_data": binary}
        sent = []
        for key, array in inputs.items():
            tensor = module.InferInput(key, list(array.shape), DATATYPES[array.dtype.name])
            tensor.set_data_from_numpy(array, **options)
            sent.append(tensor)
        wanted = [module.InferRequestedOutput(key, **options) for key in expected]
        answer = client.infer(part.name, sent, outputs=wanted, request_id="9")
        for key, array in expected.items():
            found = answer.as_numpy(key)
            assert found.dtype == array.dtype
            np.testing.assert_allclose(found, array, rtol=1e-6)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_triton_gets_half_precision_and_all_outputs_by_default(protocol: str, serve_part: Serve) -> None:
    """Half precision travels as binary, and a request that names no output gets all of them."""
    part = half_part()
    inputs = random_inputs(part)
    with triton(protocol, serve_part(part)) as (module, client):
        tensor = module.InferInput("x", [1, 9], "FP16")
        tensor.set_data_from_numpy(inputs["x"])
        found = client.infer("part", [tensor]).as_numpy("y")
        np.testing.assert_array_equal(found, np.sqrt(inputs["x"] * inputs["x"]))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_triton_is_told_what_is_wrong(protocol: str, serve_part: Serve) -> None:
    """A shape that does not fit reaches Triton's user as our one line."""
    part = half_part()
    with triton(protocol, serve_part(part)) as (module, client):
        tensor = module.InferInput("x", [1, 8], "FP16")
        tensor.set_data_from_numpy(np.zeros((1, 8), np.float16))
        exception = importlib.import_module("tritonclient.utils").InferenceServerException
        with pytest.raises(exception, match=r"input x float16\[N,9\] cannot take an array of shape \[1, 8\]"):
            client.infer("part", [tensor])
