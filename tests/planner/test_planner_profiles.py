from __future__ import annotations

import json
from pathlib import Path

import pytest
from planner_models import chain_model, make_policy

from siniantrust.graph import Part, enumerate_cuts
from siniantrust.odla import DeviceSpec, NodeProfile, open_device
from siniantrust.odla.onnxruntime import OnnxRuntimeDevice
from siniantrust.planner import CostProfile, ProfileStore, measure_costs
from siniantrust.trust import CrossingCost

_CROSSING = CrossingCost(base_s=2e-4, seconds_per_byte_in=1e-9, seconds_per_byte_out=3e-9, basis="made up")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note which parts are really measured."""
    found: list[str] = []
    profile = OnnxRuntimeDevice.profile

    def noted(self: OnnxRuntimeDevice, part: Part, *arguments: object, **named: object) -> NodeProfile:
        found.append(self.spec.name)
        return profile(self, part, *arguments, **named)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(OnnxRuntimeDevice, "profile", noted)
    return found


def _measure(store: ProfileStore, *, nodes: int = 6, threads: int = 2) -> CostProfile:
    device = open_device(DeviceSpec("gpu", options={"threads": threads}))
    model = chain_model(nodes)
    return measure_costs(
        model,
        enumerate_cuts(model),
        policy=make_policy(),
        devices={"gpu": device},
        crossing=_CROSSING,
        seed=0,
        store=store,
    )


def test_a_device_is_measured_once_for_a_model(tmp_path: Path, measured: list[str]) -> None:
    """The second time the same seconds are read, with the day on which they were measured."""
    first = _measure(ProfileStore(tmp_path))
    assert measured == ["enclave", "gpu"]
    second = _measure(ProfileStore(tmp_path))
    assert measured == ["enclave", "gpu"]
    assert second.devices["gpu"].latency_s == first.devices["gpu"].latency_s
    assert "measured on 20" in second.devices["gpu"].basis
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_another_device_or_model_is_measured_anew(tmp_path: Path, measured: list[str]) -> None:
    """What a profile holds for is the model and the device with its options."""
    _measure(ProfileStore(tmp_path))
    _measure(ProfileStore(tmp_path), threads=1)  # as many as the enclave, so known
    assert measured == ["enclave", "gpu"]
    _measure(ProfileStore(tmp_path), nodes=7)
    assert measured == ["enclave", "gpu"] * 2


def test_one_may_ask_to_measure_again(tmp_path: Path, measured: list[str]) -> None:
    """Then what is kept is replaced."""
    _measure(ProfileStore(tmp_path))
    again = _measure(ProfileStore(tmp_path, measure_again=True))
    assert measured == ["enclave", "gpu"] * 2
    assert _measure(ProfileStore(tmp_path)).devices["gpu"].latency_s == again.devices["gpu"].latency_s


@pytest.mark.parametrize("damage", [b"", b"{", b'{"version": 2, "identity": "", "day": ""}', b"\xff"])
def test_a_damaged_profile_is_measured_anew(tmp_path: Path, measured: list[str], damage: bytes) -> None:
    """Half a file is worth nothing, and the new profile says so."""
    _measure(ProfileStore(tmp_path))
    for path in tmp_path.iterdir():
        path.write_bytes(damage)
    costs = _measure(ProfileStore(tmp_path))
    assert measured == ["enclave", "gpu"] * 2
    assert "is damaged" in costs.devices["gpu"].basis


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"identity": "onnxruntime-1.0/elsewhere"}, "it was measured on onnxruntime-1.0/elsewhere, and this is onnxr"),
        ({"version": 1}, "it has version 1, 3 is read"),
    ],
)
def test_a_profile_that_is_out_of_date_is_named_and_measured_anew(
    tmp_path: Path, measured: list[str], change: dict[str, object], said: str
) -> None:
    """The new profile says which one it replaces and why; the next time it is simply read."""
    _measure(ProfileStore(tmp_path))
    for path in tmp_path.iterdir():
        path.write_text(json.dumps(json.loads(path.read_text()) | change | {"day": "2020-02-02"}))
    costs = _measure(ProfileStore(tmp_path))
    assert measured == ["enclave", "gpu"] * 2
    for basis in (costs.trusted.basis, costs.devices["gpu"].basis):
        assert f"measured anew, since the profile of 2020-02-02 is out of date: {said}" in basis
    again = _measure(ProfileStore(tmp_path))
    assert measured == ["enclave", "gpu"] * 2
    assert "out of date" not in again.devices["gpu"].basis


def test_a_profile_of_other_nodes_is_measured_anew(tmp_path: Path, measured: list[str]) -> None:
    """A profile that lacks a node is of no use, whatever it says of itself."""
    _measure(ProfileStore(tmp_path))
    for path in tmp_path.iterdir():
        kept = json.loads(path.read_text())
        del kept["profile"]["compute"]["latency_s"]["n0"]
        path.write_text(json.dumps(kept))
    _measure(ProfileStore(tmp_path))
    assert measured == ["enclave", "gpu"] * 2
