"""What ``sinian doctor`` says of enclave providers and attesters."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from fake_platforms import GraminePath, TsmPath

from siniantrust.trust import Check, Offer, Provenance, provider_offers
from siniantrust.trust._registry import PROVIDERS
from siniantrust.trust.attestation.attesters import ATTESTERS, configfs_tsm, gramine

_CHECKS = (Check("process", True, "launched", ""), Check("optee", False, "it is not set up", "no part can run"))


def _offers(*checks: Check) -> dict[tuple[str, str], Offer]:
    return {(offer.role, offer.name): offer for offer in provider_offers(checks or _CHECKS)}


def test_every_provider_and_attester_is_offered_once() -> None:
    """All of the registries are there, with the provenance that they promise, and a way to what is missing."""
    offers = _offers()
    assert len(offers) == len(provider_offers(_CHECKS))
    assert {name for role, name in offers if role == "enclave"} == set(PROVIDERS)
    assert {name for role, name in offers if role == "attester"} == set(ATTESTERS)
    for (role, name), offer in offers.items():
        assert offer.detail
        assert bool(offer.remedy) is not offer.here
        if role == "enclave":
            assert offer.provenance is PROVIDERS[name].provenance


def test_a_bare_machine_says_how_to_get_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where programs and devices are missing, each is named with what brings it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    offers = _offers(Check("process", False, "it did not start", "none can be launched"), _CHECKS[1])
    assert "gramine-sgx on the path" in offers["enclave", "gramine"].detail
    assert "apt-get install swtpm" in offers["attester", "tpm2"].remedy
    assert "sinian doctor --setup optee" in offers["enclave", "optee"].remedy
    assert offers["enclave", "process"].remedy == "none can be launched"
    here = {key for key, offer in offers.items() if offer.here}
    assert here == {("enclave", "service"), ("attester", "simulated")}


def test_an_emulated_tpm_is_offered_as_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a TPM, swtpm is offered for what it is; a TPM of the machine's own comes before it."""
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    emulated = _offers()["attester", "tpm2"]
    assert (emulated.provenance, emulated.here) == (Provenance.EMULATED, True)
    assert "tpm2:swtpm:" in emulated.detail
    monkeypatch.setattr(os, "access", lambda _path, _mode: True)
    assert _offers()["attester", "tpm2"].provenance is Provenance.HARDWARE


def test_a_machine_set_up_without_qemu_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """OP-TEE's machine needs the emulator too."""
    ready = Check("optee", True, "OP-TEE 4.5.0, for QEMU (emulated)", "")
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    assert _offers(_CHECKS[0], ready)["enclave", "optee"].here
    monkeypatch.setattr(shutil, "which", lambda _program: None)
    missing = _offers(_CHECKS[0], ready)["enclave", "optee"]
    assert not missing.here
    assert missing.detail == "qemu-system-aarch64 is not installed"


def test_a_tee_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a guest, or an enclave of Gramine, the attester and what it makes are named, as untested."""
    monkeypatch.setattr(TsmPath, "kernel", {"provider": b"sev_guest\n"})
    kernel, enclave, device = (tmp_path / name for name in ("tsm", "attestation", "sgx_enclave"))
    kernel.mkdir()
    enclave.mkdir()
    device.touch()
    (enclave / "attestation_type").write_bytes(b"dcap")
    monkeypatch.setattr(configfs_tsm.ConfigfsTsmAttester.__init__, "__defaults__", (TsmPath(kernel),))
    monkeypatch.setattr(gramine.GramineAttester.__init__, "__defaults__", (GraminePath(enclave),))
    monkeypatch.setattr("siniantrust.trust._offers._SGX", device)
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    offers = _offers()
    assert "makes sev-snp evidence" in offers["attester", "configfs-tsm"].detail
    assert "makes sgx evidence" in offers["attester", "gramine"].detail
    for key in (("enclave", "cvm"), ("attester", "configfs-tsm"), ("enclave", "gramine"), ("attester", "gramine")):
        assert offers[key].here
        assert offers[key].provenance is Provenance.HARDWARE
