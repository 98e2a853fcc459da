from __future__ import annotations

import socket
from pathlib import Path

import onnx
import pytest
from planner_models import chain_model, make_policy

from siniantrust.errors import DeviceLostError, PlanError
from siniantrust.graph import Part, enumerate_cuts
from siniantrust.odla import Device, DeviceInfo, DeviceSpec, Executable, NodeProfile, Unsupported, open_device
from siniantrust.odla._device import Arrays
from siniantrust.odla.oip import Server
from siniantrust.planner import CostProfile, measure_costs, solve
from siniantrust.trust import CrossingCost

_MODEL = chain_model(12)
_CROSSING = CrossingCost(base_s=2e-4, seconds_per_byte_in=1e-9, seconds_per_byte_out=3e-9, basis="made up")


def _measure(device: Device, *, seed: int = 0) -> CostProfile:
    return measure_costs(_MODEL, policy=make_policy(), devices={"gpu": device}, crossing=_CROSSING, seed=seed)


class _Picky:
    """A device of ONNX Runtime that refuses some nodes."""

    def __init__(self, refused: list[Unsupported]) -> None:
        self.spec = DeviceSpec("gpu")
        self._inner = open_device(self.spec)
        self._refused = refused

    def info(self) -> DeviceInfo:
        return self._inner.info()

    def supports(self, part: Part) -> list[Unsupported]:
        assert part.node_names
        return self._refused

    def compile(self, part: Part) -> Executable:
        return self._inner.compile(part)

    def profile(self, part: Part, inputs: Arrays, *, repeats: int) -> NodeProfile:
        raise AssertionError((part.name, inputs, repeats))

    def close(self) -> None:
        self._inner.close()


def test_every_node_is_measured_on_either_side() -> None:
    """A local profile has seconds for each node, says how it was measured, and survives JSON."""
    costs = _measure(open_device(DeviceSpec("gpu", options={"threads": 2})))
    names = {node.name for node in _MODEL.nodes}
    assert set(costs.trusted.latency_s) == set(costs.devices["gpu"].latency_s) == names
    assert sum(costs.trusted.latency_s.values()) > 0
    assert "1 threads" in costs.trusted.basis
    assert "2 threads" in costs.devices["gpu"].basis
    assert costs.crossing.seconds_per_byte_out == 3e-9
    assert costs.transfers["gpu"].base_s == 0.0
    assert CostProfile.model_validate_json(costs.model_dump_json()) == costs


def test_the_same_device_under_two_names_is_measured_once() -> None:
    """A device that is configured as the enclave is gets the very same figures."""
    costs = _measure(open_device(DeviceSpec("gpu", options={"threads": 1})))
    assert costs.devices["gpu"].latency_s == costs.trusted.latency_s


def test_a_measured_profile_leads_to_a_plan() -> None:
    """The solver takes what was measured."""
    costs = _measure(open_device(DeviceSpec("gpu")))
    plan = solve(_MODEL, enumerate_cuts(_MODEL), policy=make_policy(public_inputs=["x"]), audit=None, costs=costs)
    assert plan.machine == costs.machine
    assert all(term.basis for term in plan.prediction.terms)


@pytest.mark.parametrize(
    ("refused", "count"),
    [([Unsupported("n3", "Sigmoid", "no kernel")], 1), ([Unsupported("", "", "out of memory")], len(_MODEL.nodes))],
)
def test_nodes_that_a_device_refuses_are_known_as_such(refused: list[Unsupported], count: int) -> None:
    """A device that cannot run the whole model is not profiled; its costs are marked as estimated."""
    cost = _measure(_Picky(refused)).devices["gpu"]
    assert len(cost.unsupported) == count
    assert cost.basis.startswith("estimated")


def test_a_server_with_the_whole_model_is_measured(tmp_path: Path) -> None:
    """The local profile is spread over measured runs at the server, and the basis says so."""
    onnx.save(_MODEL.proto, tmp_path / "whole.onnx")
    with Server(tmp_path / "whole.onnx") as endpoints:
        costs = _measure(open_device(DeviceSpec("gpu", "remote", {"url": endpoints.grpc_url})))
    assert "measured runs of the whole model" in costs.devices["gpu"].basis
    assert costs.transfers["gpu"].base_s > 0


def test_a_server_with_another_model_is_estimated(tmp_path: Path) -> None:
    """A server that holds something else answers, so its link is measured and its speed is taken as this machine's."""
    onnx.save(chain_model(3).proto, tmp_path / "whole.onnx")
    with Server(tmp_path / "whole.onnx") as endpoints:
        costs = _measure(open_device(DeviceSpec("gpu", "remote", {"url": endpoints.grpc_url})))
    assert "holds another model" in costs.devices["gpu"].basis
    assert costs.transfers["gpu"].base_s > 0


def test_a_server_that_does_not_answer_is_named() -> None:
    """Nothing is assumed of a server that is not there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    device = open_device(DeviceSpec("gpu", "remote", {"url": f"grpc://127.0.0.1:{port}", "timeout_s": 2}))
    with pytest.raises(DeviceLostError, match=str(port)):
        _measure(device)


def test_a_device_of_the_policy_that_was_not_opened_is_named() -> None:
    """Every device of the policy has to be measured."""
    with pytest.raises(PlanError, match="device 'gpu' of the policy was not opened"):
        measure_costs(_MODEL, policy=make_policy(), devices={}, crossing=_CROSSING, seed=0)
