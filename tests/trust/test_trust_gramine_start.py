from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from remote_cases import LOOPBACK, MEASUREMENT, REFERENCE

from siniantrust.errors import AttestationError, EnclaveError
from siniantrust.trust import EnclaveSpec, Provenance
from siniantrust.trust.gramine import _provider
from siniantrust.trust.gramine._provider import GramineEnclave
from siniantrust.trust.tls import Address

_SERVE = f"""
import os, sys
from siniantrust.trust.attestation.attesters.simulated import SimulatedAttester
from siniantrust.trust.service import EnclaveService
from siniantrust.trust.tls import Address
open("pid", "w").write(str(os.getpid()))
EnclaveService(SimulatedAttester("{MEASUREMENT}"), Address("127.0.0.1", int(open("port").read()))).run()
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EnclaveSpec:
    """Return the spec of an enclave that is started here; a program in Gramine's place runs the service, simulated."""
    with socket.create_server(LOOPBACK) as listener:
        address = Address(*listener.getsockname()[:2])
    (tmp_path / "port").write_text(str(address.port))
    (tmp_path / "serve.py").write_text(_SERVE)
    _program(tmp_path, f'[ "$1" = sinian ] && exec {sys.executable} serve.py')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return EnclaveSpec(
        provider="gramine",
        memory_bytes=256 << 20,
        accept=(Provenance.SIMULATED,),
        address=str(address),
        reference=REFERENCE,
        folder=tmp_path,
    )


def _program(folder: Path, text: str) -> None:
    (folder / "gramine-sgx").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "gramine-sgx").chmod(0o755)


def _ended(folder: Path) -> bool:
    """Return whether the started process is gone, waiting a little for it."""
    pid = int((folder / "pid").read_text())
    for _ in range(100):
        if not Path("/proc", str(pid)).exists():
            return True
        time.sleep(0.05)
    return False


def test_an_enclave_is_started_and_ended(spec: EnclaveSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is started in the manifest's folder, attested once it listens, and ended by close."""
    monkeypatch.setattr(GramineEnclave, "kinds", None)
    assert spec.folder is not None
    enclave = GramineEnclave(spec)
    assert enclave.evidence(os.urandom(32)).provenance is Provenance.SIMULATED
    enclave.close()
    enclave.close()
    assert _ended(spec.folder)


def test_an_enclave_that_does_not_attest_is_ended(spec: EnclaveSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was started and is refused does not go on running."""
    monkeypatch.setattr(GramineEnclave, "kinds", None)
    assert spec.folder is not None
    (spec.folder / "serve.py").write_text(_SERVE.replace(MEASUREMENT, "cd" * 32))
    with pytest.raises(AttestationError, match="measurement"):
        GramineEnclave(spec)
    assert _ended(spec.folder)


def test_nothing_is_started_for_evidence_that_is_not_admitted(spec: EnclaveSpec) -> None:
    """Reference values of another kind are refused before anything is started."""
    assert spec.folder is not None
    with pytest.raises(AttestationError, match="of kind sgx, found 'simulated'"):
        GramineEnclave(spec)
    assert not (spec.folder / "pid").exists()


def test_a_program_that_ends_is_quoted(spec: EnclaveSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Gramine ends by itself, its last words and its exit code are in the error."""
    monkeypatch.setattr(GramineEnclave, "kinds", None)
    assert spec.folder is not None
    _program(spec.folder, "echo 'error: no SGX driver' >&2; exit 3")
    with pytest.raises(EnclaveError, match=r"ended with exit code 3 \(error: no SGX driver\)"):
        GramineEnclave(spec)


def test_an_enclave_that_never_listens_is_ended(spec: EnclaveSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time for starting, the attempt is given up, and the process ended, by force if it has to be."""
    monkeypatch.setattr(GramineEnclave, "kinds", None)
    monkeypatch.setattr(_provider, "_START_TIMEOUT_S", 0.5)
    monkeypatch.setattr(_provider, "_GRACE_S", 0.2)
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def record(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", record)
    assert spec.folder is not None
    _program(spec.folder, "trap '' TERM; while :; do sleep 0.1; done")
    with pytest.raises(EnclaveError, match=r"nothing listens at 127\.0\.0\.1"):
        GramineEnclave(spec)
    assert started[0].poll() is not None


def test_a_machine_without_gramine_says_so(spec: EnclaveSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the program, or without the folder, the error names it."""
    monkeypatch.setattr(GramineEnclave, "kinds", None)
    (tmp_path / "gramine-sgx").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnclaveError, match="gramine-sgx is not on the path"):
        GramineEnclave(spec)
    _program(tmp_path, "exit 0")
    with pytest.raises(EnclaveError, match=r"nowhere: cannot be started there \(No such file"):
        GramineEnclave(dataclasses.replace(spec, folder=tmp_path / "nowhere"))
