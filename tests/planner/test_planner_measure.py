from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from planner_models import chain_model, make_policy

from siniantrust.errors import DeviceError, DeviceLostError, PlanError
from siniantrust.graph import Part, enumerate_cuts, split
from siniantrust.odla import Device, DeviceInfo, DeviceSpec, Executable, NodeProfile, Unsupported, open_device, profile
from siniantrust.odla._device import Arrays
from siniantrust.odla.oip import Server
from siniantrust.planner import CostProfile, measure_costs, solve
from siniantrust.trust import CrossingCost

_MODEL = chain_model(12)
_CUTS = enumerate_cuts(_MODEL)
_CROSSING = CrossingCost(base_s=2e-4, seconds_per_byte_in=1e-9, seconds_per_byte_out=3e-9, basis="made up")


def _measure(device: Device, *, seed: int = 0) -> CostProfile:
    return measure_costs(_MODEL, _CUTS, policy=make_policy(), devices={"gpu": device}, crossing=_CROSSING, seed=seed)


class _Picky:
    """A device of ONNX Runtime that refuses some nodes, or everything."""

    def __init__(self, refused: Unsupported) -> None:
        self.spec = DeviceSpec("gpu")
        self._inner = open_device(self.spec)
        self._refused = refused

    def info(self) -> DeviceInfo:
        return replace(self._inner.info(), identity=f"picky about {self._refused.node}")

    def supports(self, part: Part) -> list[Unsupported]:
        return [self._refused] if self._refused.node in ("", *part.node_names) else []

    def compile(self, part: Part) -> Executable:
        if self.supports(part):
            raise DeviceError(f"no {part.name}")
        return self._inner.compile(part)

    def close(self) -> None:
        self._inner.close()


class _PickyProfiler(_Picky):
    """The same, which can tell what each node costs."""

    def profile(self, part: Part, inputs: Arrays, *, repeats: int) -> NodeProfile:
        if self.supports(part):
            raise DeviceError(f"no {part.name}")
        return profile(self._inner, part, inputs, repeats=repeats)


def test_every_node_is_measured_on_either_side() -> None:
    """A local profile has seconds for each node, says how it was measured, and survives JSON."""
    costs = _measure(open_device(DeviceSpec("gpu", options={"threads": 2})))
    names = {node.name for node in _MODEL.nodes}
    assert set(costs.trusted.latency_s) == set(costs.devices["gpu"].latency_s) == names
    assert sum(costs.trusted.latency_s.values()) > 0
    assert "1 threads" in costs.trusted.basis
    assert "2 threads" in costs.devices["gpu"].basis
    assert costs.crossing.base_s > 2e-4
    assert costs.crossing.seconds_per_byte_out >= 3e-9
    assert costs.transfers["gpu"].base_s > 0
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


def test_the_enclave_is_as_slow_as_it_was_measured_to_be() -> None:
    """What this process takes is scaled by what the enclave took for a small network."""
    device = open_device(DeviceSpec("gpu", options={"threads": 1}))
    slow = replace(_CROSSING, slowdown=20.0)
    costs = measure_costs(_MODEL, _CUTS, policy=make_policy(), devices={"gpu": device}, crossing=slow, seed=0)
    for name, seconds in costs.devices["gpu"].latency_s.items():
        assert costs.trusted.latency_s[name] == pytest.approx(20 * seconds)
    assert "times 20" in costs.trusted.basis


@pytest.mark.parametrize("kind", [_Picky, _PickyProfiler])
def test_what_a_device_takes_is_measured_and_the_rest_predicted(kind: type[_Picky]) -> None:
    """A device that refuses one node is measured on the pieces without it; every node has a cost, the basis says how.

    Only the refused node is marked as such.
    """
    cost = _measure(kind(Unsupported("n3", "Relu", "no kernel"))).devices["gpu"]
    assert cost.unsupported == {"n3": "no kernel"}
    assert set(cost.latency_s) == {node.name for node in _MODEL.nodes}
    assert sum(cost.latency_s.values()) > 0
    assert "pieces of the model that the device takes measured" in cost.basis
    assert "regression" in cost.basis
    assert "% (median)" in cost.basis


def test_a_device_that_takes_nothing_has_no_node() -> None:
    """Every node is refused with the device's reason, and its speed is only assumed."""
    cost = _measure(_Picky(Unsupported("", "", "out of memory"))).devices["gpu"]
    assert cost.unsupported == {node.name: "out of memory" for node in _MODEL.nodes}
    assert "assumed" in cost.basis


def test_a_device_that_cannot_tell_is_measured_in_pieces() -> None:
    """Without a profile of nodes, pieces are timed, and regression shares each one out among its nodes."""
    cost = _measure(_Picky(Unsupported("nothing", "", ""))).devices["gpu"]
    assert cost.unsupported == {}
    assert set(cost.latency_s) == {node.name for node in _MODEL.nodes}
    assert all(seconds >= 0 for seconds in cost.latency_s.values())
    assert cost.basis.startswith("estimated within pieces by regression on FLOPs and bytes")
    assert "pieces and the whole (medians of" in cost.basis


def test_a_server_with_the_whole_model_is_measured(tmp_path: Path) -> None:
    """The profile of this machine is scaled by measured runs at the server, the way there and back aside."""
    onnx.save(_MODEL.proto, tmp_path / "whole.onnx")
    with Server(tmp_path / "whole.onnx") as endpoints:
        costs = _measure(open_device(DeviceSpec("gpu", "remote", {"url": endpoints.grpc_url})))
    assert "runs of 12 of the model's 12 nodes" in costs.devices["gpu"].basis
    assert costs.transfers["gpu"].base_s > 0
    assert "assumed" not in costs.transfers["gpu"].basis


@pytest.mark.parametrize("ends", [(3, None), (3, 7)])
def test_a_server_with_a_part_of_the_model_is_measured_by_it(tmp_path: Path, ends: tuple[int, int | None]) -> None:
    """The part that an earlier plan left there is found by its tensors, whether it reaches the output or not."""
    cuts = [cut for end in ends if end is not None for cut in _CUTS.cuts if cut.tensors == (f"t{end}",)]
    part = split(_MODEL, cuts)[1]
    onnx.save(part.proto, tmp_path / "part2.onnx")
    with Server(tmp_path / "part2.onnx") as endpoints:
        costs = _measure(open_device(DeviceSpec("gpu", "remote", {"url": endpoints.grpc_url})))
    assert f"runs of {len(part.node_names)} of the model's 12 nodes" in costs.devices["gpu"].basis


@pytest.mark.parametrize("output", ["t2", "odd"])
def test_a_server_with_another_model_is_measured_with_a_small_network(tmp_path: Path, output: str) -> None:
    """Also one whose tensors have the names of ours: its speed comes from the part that our servers have for it."""
    other = chain_model(3).proto
    for tensor in other.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(tensor), tensor.name))
    other.graph.node[-1].output[0] = other.graph.output[0].name = output
    onnx.save(other, tmp_path / "whole.onnx")
    with Server(tmp_path / "whole.onnx") as endpoints:
        costs = _measure(open_device(DeviceSpec("gpu", "remote", {"url": endpoints.grpc_url})))
    assert "measured with a small network" in costs.devices["gpu"].basis
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
        measure_costs(_MODEL, _CUTS, policy=make_policy(), devices={}, crossing=_CROSSING, seed=0)
