from __future__ import annotations

import ctypes
import ctypes.util
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from trust_parts import Launch, LoadPart

from siniantrust.errors import EnclaveError
from siniantrust.graph import Part
from siniantrust.trust import PROTECTIONS, Enclave, EnclaveSpec, host_checks, measure_crossing
from siniantrust.trust.process import _launcher, _measure


def test_every_protection_and_hint_is_reported_once() -> None:
    """The host's checks name the kernel, every protection and the hints of hardware, each with a consequence."""
    checks = host_checks()
    names = [check.name for check in checks]
    assert len(set(names)) == len(names)
    assert {"kernel", "process", "sgx", "tdx", "sev-snp", "tpm"} <= set(names)
    if checks[1].ok:
        assert {protection.name for protection in PROTECTIONS} <= set(names)
    assert all(check.detail for check in checks)
    assert all(check.consequence for check in checks if not check.ok)


def _offers_namespaces() -> bool:
    """Ask util-linux, which shares no code with ours."""
    program = shutil.which("unshare")
    command = ["--mount", "--pid", "--fork", "--net", "--ipc", "--uts", "--cgroup", "--user", "true"]
    return program is not None and subprocess.run([program, *command], check=False, timeout=30).returncode == 0


def _offers_secret_memory() -> bool:
    handle = ctypes.CDLL(None, use_errno=True).syscall(447, 0)
    if handle >= 0:
        os.close(handle)
    return bool(handle >= 0)


def test_what_the_host_offers_is_active() -> None:
    """A protection that the host demonstrably offers is not reported as missing: a fault of ours cannot hide there."""
    if sys.platform != "linux":
        pytest.skip("the process enclave needs Linux")
    expected = {"no_privileges", "no_dump", "one_core", "memory_limit"}
    libc = ctypes.CDLL(None, use_errno=True)
    offers = {
        "landlock": libc.syscall(444, None, ctypes.c_size_t(0), 1) > 0,
        "seccomp": ctypes.util.find_library("seccomp") is not None and find_spec("pyseccomp") is not None,
        "namespaces": _offers_namespaces(),
        "secret_memory": _offers_secret_memory(),
    }
    expected |= {name for name, offered in offers.items() if offered}
    states = {check.name: check for check in host_checks()}
    assert {name: states[name].detail for name in expected if not states[name].ok} == {}


def test_a_host_on_which_nothing_starts_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """When no process enclave can be launched, one failed check says why, and nothing raises."""

    def refuse(*_args: object, **_named: object) -> None:
        raise EnclaveError("process enclave: it did not start (for this test)")

    monkeypatch.setattr(_launcher, "start", refuse)
    (process,) = [check for check in host_checks() if check.name == "process"]
    assert not process.ok
    assert "for this test" in process.detail


def test_the_crossing_cost_predicts_a_crossing(launched: Launch, load_part: LoadPart, conv_part: Part) -> None:
    """All coefficients are finite and not negative, larger crossings cost more, and the basis is described."""
    enclave = launched(memory_bytes=512 << 20)
    cost = measure_crossing(enclave)
    assert 0 <= cost.base_s < 1
    assert 0 <= cost.seconds_per_byte_in < 1e-6
    assert 0 <= cost.seconds_per_byte_out < 1e-6
    assert cost.seconds_per_byte_in + cost.seconds_per_byte_out > 0
    assert cost.latency_s(1 << 20, 1 << 20) > cost.latency_s(0, 0)
    assert "medians" in cost.basis
    load_part(enclave, "conv", conv_part)
    assert enclave.run("conv", {"x": np.ones((1, 3, 16, 16), np.float32)})["y"].shape == (1, 8, 16, 16)


def test_the_measured_program_is_what_the_enclave_loads(shared_enclave: Enclave) -> None:
    """The Verifier's list of files and the modules that an enclave loads give the same measurement."""
    reference = _measure.reference_values(EnclaveSpec(memory_bytes=256 << 20))
    assert shared_enclave.evidence(bytes(32)).measurement == reference.measurement


def test_another_configuration_measures_differently() -> None:
    """Memory limit and threads are part of the measurement."""
    specs = [EnclaveSpec(memory_bytes=size, threads=threads) for size in (1, 2) for threads in (1, 2)]
    assert len({_measure.reference_values(spec).measurement for spec in specs}) == len(specs)


def test_a_changed_file_measures_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte more in one file of the program changes the measurement."""
    before = _measure.reference_values(EnclaveSpec(memory_bytes=1))
    with monkeypatch.context() as patched:
        read = Path.read_bytes
        patched.setattr(
            Path,
            "read_bytes",
            lambda self: read(self) + (b"#" if self.name == "_serve.py" else b""),
        )
        after = _measure.reference_values(EnclaveSpec(memory_bytes=1))
    assert before != after
