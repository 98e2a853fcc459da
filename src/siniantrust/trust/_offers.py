"""Which enclave providers and attesters this machine has, with what provenance, and how to get those that it lacks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from siniantrust.errors import SinianError
from siniantrust.trust._labels import Provenance
from siniantrust.trust._types import Check

_SGX = Path("/dev/sgx_enclave")
_GUEST = "run `sinian enclave serve --attester configfs-tsm` in a guest of Intel TDX or AMD SEV-SNP, and connect to it"


@dataclass(frozen=True, slots=True)
class Offer:
    """A provider of enclaves, or an attester, as this machine has it.

    Attributes:
        name: of the provider or attester.
        role: ``enclave`` or ``attester``.
        provenance: where its claims would come from here; None where its evidence says.
        here: whether it can be used on this machine.
        detail: what was found.
        remedy: how to get it; empty where it is here.
    """

    name: str
    role: str
    provenance: Provenance | None
    here: bool
    detail: str
    remedy: str = ""


def provider_offers(checks: Iterable[Check]) -> list[Offer]:
    """Return an offer for every enclave provider and every attester, found out by trying where that changes nothing.

    Args:
        checks: what ``host_checks`` returned: the process enclave was tried there.
    """
    by_name = {check.name: check for check in checks}
    tsm = _configfs_tsm()
    return [
        _process(by_name["process"]),
        Offer("service", "enclave", None, True, "reaches any enclave service; its evidence says what it is worth"),
        Offer(
            "cvm",
            "enclave",
            Provenance.HARDWARE,
            tsm.here,
            "this machine is a confidential guest" if tsm.here else "reaches guests elsewhere; this machine is none",
            "" if tsm.here else _GUEST,
        ),
        _gramine_enclave(),
        _optee(by_name["optee"]),
        tsm,
        _gramine_attester(),
        _tpm2(),
        Offer("simulated", "attester", Provenance.SIMULATED, True, "states a measurement; nothing stands behind it"),
    ]


def _process(tried: Check) -> Offer:
    remedy = "" if tried.ok else tried.consequence
    return Offer("process", "enclave", Provenance.SIMULATED, tried.ok, tried.detail, remedy)


def _optee(machine: Check) -> Offer:
    from siniantrust.trust.optee._cache import QEMU, SETUP

    detail, here = machine.detail, machine.ok
    if here and shutil.which(QEMU) is None:
        detail, here = f"{QEMU} is not installed", False
    return Offer("optee", "enclave", Provenance.EMULATED, here, detail, "" if here else f"as root, on Debian: {SETUP}")


def _gramine_enclave() -> Offer:
    command = shutil.which("gramine-sgx")
    lacks = [what for what, there in (("gramine-sgx on the path", command), (str(_SGX), _SGX.exists())) if not there]
    if not lacks:
        return Offer("gramine", "enclave", Provenance.HARDWARE, True, f"{command} and {_SGX} (untested on hardware)")
    return Offer(
        "gramine",
        "enclave",
        Provenance.HARDWARE,
        False,
        f"reaches enclaves elsewhere; to start one here, there is no {' and no '.join(lacks)}",
        "on a processor with SGX, install Gramine and make the enclave: sinian gramine manifest",
    )


def _configfs_tsm() -> Offer:
    from siniantrust.trust.attestation.attesters.configfs_tsm import ConfigfsTsmAttester

    try:
        kind = ConfigfsTsmAttester().kind
    except SinianError as fault:
        return Offer("configfs-tsm", "attester", Provenance.HARDWARE, False, str(fault), _GUEST)
    return Offer("configfs-tsm", "attester", Provenance.HARDWARE, True, f"makes {kind} evidence (untested on hardware)")


def _gramine_attester() -> Offer:
    from siniantrust.trust.attestation.attesters.gramine import GramineAttester

    try:
        GramineAttester()
    except SinianError as fault:
        remedy = "run it in the enclave that `sinian gramine manifest` describes"
        return Offer("gramine", "attester", Provenance.HARDWARE, False, str(fault), remedy)
    return Offer("gramine", "attester", Provenance.HARDWARE, True, "makes sgx evidence (untested on hardware)")


def _tpm2() -> Offer:
    from siniantrust.trust.attestation.tpm2 import DEFAULT_DEVICE

    if os.access(DEFAULT_DEVICE, os.R_OK | os.W_OK):
        return Offer("tpm2", "attester", Provenance.HARDWARE, True, f"{DEFAULT_DEVICE} (untested on hardware)")
    found = "may not be used by this user" if Path(DEFAULT_DEVICE).exists() else "is absent"
    if shutil.which("swtpm") is not None:
        detail = f"{DEFAULT_DEVICE} {found}; swtpm is installed: start one, and say --attester tpm2:swtpm:HOST:PORT"
        return Offer("tpm2", "attester", Provenance.EMULATED, True, detail)
    return Offer(
        "tpm2",
        "attester",
        Provenance.HARDWARE,
        False,
        f"{DEFAULT_DEVICE} {found}",
        "on a machine with a TPM 2.0, join the group tss; or emulate one: sudo apt-get install swtpm",
    )
