"""What a call costs beyond the computation: here, at our servers, and at servers of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from odla_parts import gemm_part

from siniantrust.errors import DeviceError, DeviceLostError
from siniantrust.graph import Part
from siniantrust.odla import (
    CallCost,
    Device,
    DeviceSpec,
    ModelHolder,
    compute_part,
    link_part,
    measure_call,
    measure_speed,
    open_device,
)
from siniantrust.odla._call_cost import fit_calls
from siniantrust.odla.oip import Endpoints, _servable

Serve = Callable[..., Endpoints]
OpenRemote = Callable[..., Device]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch", "iree"])
def test_every_backend_takes_the_parts_for_measuring(backend: str) -> None:
    """The part that moves data returns what came in, the one that computes the same on every device."""
    pytest.importorskip({"iree": "iree.compiler"}.get(backend, backend), reason=f"{backend} is not installed")
    device = open_device(DeviceSpec("here", backend))
    x = np.arange(2048, dtype=np.float32).reshape(2, 1024)
    for output, expected in (("every", x), ("first", x[:, :1])):
        found = device.compile(link_part(output)).run({"x": x})
        np.testing.assert_array_equal(found[output], expected)
    picture = np.random.default_rng(0).standard_normal((1, 3, 96, 96)).astype(np.float32)
    reference = open_device(DeviceSpec("reference")).compile(compute_part()).run({"x": picture})
    np.testing.assert_allclose(
        device.compile(compute_part()).run({"x": picture})["y"], reference["y"], rtol=1e-3, atol=1e-4
    )


def test_a_call_in_this_process_is_measured() -> None:
    """It costs something, and more bytes never cost less."""
    cost = measure_call(open_device(DeviceSpec("here")))
    assert 0 < cost.latency_s(0, 0) <= cost.latency_s(1 << 20, 0) <= cost.latency_s(1 << 20, 1 << 20) < 1
    assert "in this process" in cost.basis


def test_a_device_that_takes_no_such_part_is_not_counted() -> None:
    """A device of others may know only its own operators; the basis says that its calls are not counted."""

    class Refusing:
        spec = DeviceSpec("odd")

        def compile(self, part: Part) -> None:
            raise DeviceError(f"no {part.name}")

    cost = measure_call(Refusing())  # type: ignore[arg-type]  # as much of a device as is asked for
    assert cost.latency_s(1 << 20, 1 << 20) == 0.0
    assert cost.basis.startswith("not counted")


def test_the_fit_gives_back_planted_costs() -> None:
    """Base and bytes in either direction are told apart."""
    planted = CallCost(1e-4, 2e-9, 5e-9, "")
    sizes = [(size, out) for size in (1 << 12, 1 << 18, 1 << 22) for out in (size, 4)]
    found = fit_calls(sizes, [planted.latency_s(*size) for size in sizes], basis="planted")
    assert found.base_s == pytest.approx(planted.base_s)
    assert found.seconds_per_byte_in == pytest.approx(planted.seconds_per_byte_in)
    assert found.seconds_per_byte_out == pytest.approx(planted.seconds_per_byte_out)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_our_server_is_measured_whatever_it_serves(scheme: str, serve_part: Serve, open_remote: OpenRemote) -> None:
    """The way is measured with the server's own part, in both directions, also where the options name a model."""
    endpoints = serve_part(gemm_part())
    url = endpoints.grpc_url if scheme == "grpc" else endpoints.http_url
    device = open_remote(url, model="gemm")
    cost = measure_call(device)
    assert "only move data" in cost.basis
    assert "assumed" not in cost.basis
    assert cost.base_s > 0
    assert cost.seconds_per_byte_in + cost.seconds_per_byte_out > 0
    assert isinstance(device, ModelHolder)
    reference = open_device(DeviceSpec("reference", options={"threads": 1}))
    assert 0 < measure_speed(device.calibration(), reference, cost) < 100


@pytest.mark.parametrize(("scheme", "said"), [("grpc", "refused requests"), ("http", "bytes assumed as over 1 Gbit/s")])
def test_a_server_of_others_is_measured_by_what_it_refuses(
    scheme: str, said: str, serve_part: Serve, open_remote: OpenRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without our parts at the server, requests that it refuses are timed over gRPC, and empty ones over REST."""

    def none(_: Device) -> Iterator[Any]:
        return iter(())

    monkeypatch.setattr(_servable, "_calibration", none)
    endpoints = serve_part(gemm_part())
    cost = measure_call(open_remote(endpoints.grpc_url if scheme == "grpc" else endpoints.http_url))
    assert said in cost.basis
    assert cost.base_s > 0
    assert cost.seconds_per_byte_in > 0


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_server_that_is_gone_is_lost(scheme: str, open_remote: OpenRemote) -> None:
    """Nothing is assumed of it."""
    device = open_remote(f"{scheme}://127.0.0.1:9", timeout_s=2)
    with pytest.raises(DeviceLostError):
        measure_call(device)
    assert isinstance(device, ModelHolder)
    with pytest.raises(DeviceLostError):
        device.held("part2")


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_server_tells_what_it_holds(scheme: str, serve_part: Serve, open_remote: OpenRemote) -> None:
    """The names of inputs and outputs, and nothing of a model that it does not have."""
    endpoints = serve_part(gemm_part())
    device = open_remote(endpoints.grpc_url if scheme == "grpc" else endpoints.http_url)
    assert isinstance(device, ModelHolder)
    held = device.held("gemm")
    assert held is not None
    assert held.inputs == {"x"}
    assert held.outputs == {"y"}
    assert device.held("part2") is None
