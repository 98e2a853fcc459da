from __future__ import annotations

from pathlib import Path

import pytest
from planner_models import chain_model, make_policy

from siniantrust.graph import Part
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
    return measure_costs(
        chain_model(nodes), policy=make_policy(), devices={"gpu": device}, crossing=_CROSSING, seed=0, store=store
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


@pytest.mark.parametrize("damage", [b"", b"{", b'{"latency_s": {}, "total_s": 1.0, "basis": "", "day": ""}', b"\xff"])
def test_a_damaged_profile_is_measured_anew(tmp_path: Path, measured: list[str], damage: bytes) -> None:
    """Half a file, or one for other nodes, is worth nothing."""
    _measure(ProfileStore(tmp_path))
    for path in tmp_path.iterdir():
        path.write_bytes(damage)
    _measure(ProfileStore(tmp_path))
    assert measured == ["enclave", "gpu"] * 2
