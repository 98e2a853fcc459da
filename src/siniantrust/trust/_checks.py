"""What this host offers for trusted execution, found out by trying."""

from __future__ import annotations

import platform
from pathlib import Path

from siniantrust.errors import EnclaveError, SinianError
from siniantrust.trust._labels import Provenance
from siniantrust.trust._protections import ACTIVE, PROTECTIONS
from siniantrust.trust._types import Check, EnclaveSpec

_PROBE_MEMORY_BYTES = 256 << 20
_HARDWARE = (
    ("sgx", "/dev/sgx_enclave", "Intel SGX enclaves"),
    ("tdx", "/dev/tdx_guest", "Intel TDX, as a confidential guest"),
    ("sev-snp", "/dev/sev-guest", "AMD SEV-SNP, as a confidential guest"),
    ("tpm", "/dev/tpmrm0", "TPM 2.0 attestation and sealing"),
)


def host_checks() -> list[Check]:
    """Return what this host offers: the kernel, each protection of the process enclave, and hints of trusted hardware.

    The protections are probed by launching a process enclave that may lack any of them and asking what it got; nothing
    is concluded from version numbers. A device file is only a hint: the hardware behind it has proved nothing.
    """
    kernel = Check("kernel", platform.system() == "Linux", f"{platform.system()} {platform.release()}", _NEEDS_LINUX)
    return [kernel, *_protections(), _optee(), *map(_hardware, _HARDWARE)]


_NEEDS_LINUX = "the process enclave needs Linux"


def _protections() -> list[Check]:
    from siniantrust.trust.process._host import ProcessEnclave

    every = tuple(protection.name for protection in PROTECTIONS)
    spec = EnclaveSpec(memory_bytes=_PROBE_MEMORY_BYTES, accept=(Provenance.SIMULATED,), allow_missing=every)
    try:
        enclave = ProcessEnclave(spec)
    except SinianError as fault:
        return [Check("process", False, str(fault), "no process enclave can be launched on this host")]
    try:
        states = enclave.info().protections
    finally:
        enclave.close()
    checks = [Check("process", True, "launched, attested and closed a process enclave (simulated)", "")]
    for protection in PROTECTIONS:
        state = states.get(protection.name, "missing: not reported")
        detail = protection.meaning if state == ACTIVE else state
        line = f'the enclave is refused, unless the policy says: [enclave] allow_missing = ["{protection.name}"]; then '
        checks.append(Check(protection.name, state == ACTIVE, detail, line + protection.without))
    return checks


def _optee() -> Check:
    from siniantrust.trust.optee._cache import SETUP, find_machine

    consequence = f"no part can run in OP-TEE here, until: {SETUP}"
    try:
        machine = find_machine()
    except EnclaveError as fault:
        return Check("optee", False, str(fault), consequence)
    return Check("optee", True, f"OP-TEE {machine.optee_version}, for QEMU (emulated)", consequence)


def _hardware(entry: tuple[str, str, str]) -> Check:
    name, path, meaning = entry
    present = Path(path).exists()
    detail = f"{path} is {'present' if present else 'absent'} ({meaning})"
    return Check(name, present, detail, f"nothing on this host can be trusted on the word of {meaning}")
