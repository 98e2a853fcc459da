"""Where the pieces of the emulated machine lie, once ``sinian doctor --setup optee`` has fetched and built them."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from siniantrust.errors import EnclaveError

SETUP = "sinian doctor --setup optee"
QEMU = "qemu-system-aarch64"
PLATFORM = "vexpress-qemu_armv8a"
CROSS_COMPILE = "aarch64-linux-gnu-"
SOURCES = Path(str(files("siniantrust.trust.optee")))


def cache_folder() -> Path:
    """Return the folder that holds everything, in the user's cache (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "siniantrust" / "optee"


@dataclass(frozen=True, slots=True)
class Machine:
    """The pieces that a guest is started from, and that applications are built with.

    Attributes:
        firmware: TF-A with OP-TEE, for QEMU's flash.
        kernel: Linux for the normal world.
        initrd: the normal world's programs: busybox, OP-TEE's supplicant, the agent.
        dev_kit: OP-TEE's kit for building trusted applications.
        applications: folder where built applications are kept.
        firmware_sha256: SHA-256 of the firmware, in hexadecimal.
        optee_version: version of the package that OP-TEE came in.
    """

    firmware: Path
    kernel: Path
    initrd: Path
    dev_kit: Path
    applications: Path
    firmware_sha256: str
    optee_version: str


def guest_key() -> str:
    """Return a hash over the files that the guest is made of here: another one means that it must be built again."""
    digest = hashlib.sha256()
    for path in sorted((SOURCES / "guest").iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def find_machine() -> Machine:
    """Return the machine's pieces.

    Raises:
        EnclaveError: if they are not set up, or were set up by another version.
    """
    folder = cache_folder()
    try:
        record = json.loads((folder / "machine.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise EnclaveError(f"enclave 'optee': it is not set up in {folder}; run: {SETUP}") from None
    if record["guest"] != guest_key():
        raise EnclaveError(f"enclave 'optee': {folder} was set up by another version; run: {SETUP}")
    return Machine(
        firmware=folder / "firmware.bin",
        kernel=folder / "vmlinuz",
        initrd=folder / "initrd.gz",
        dev_kit=folder / "arm64/usr/lib/optee-os-dev" / PLATFORM,
        applications=folder / "applications",
        firmware_sha256=record["firmware_sha256"],
        optee_version=record["optee_version"],
    )
