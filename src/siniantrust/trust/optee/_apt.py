"""Debian's packages for another architecture, beside the system's own: its lists and packages stay untouched."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from siniantrust._files import write_atomic
from siniantrust.errors import EnclaveError

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def run(command: Sequence[str], *, what: str, cwd: Path | None = None) -> str:
    """Run a program and return what it wrote.

    Raises:
        EnclaveError: with the last line that it wrote, if it fails or is missing.
    """
    environment = os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)
    except OSError as fault:
        raise EnclaveError(f"setup of 'optee': {what}: {command[0]} does not start ({fault.strerror})") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        last = lines[-1] if lines else "it said nothing"
        raise EnclaveError(f"setup of 'optee': {what}: {command[0]} failed ({last})")
    return done.stdout


def require_debian() -> None:
    """Refuse systems that do not have Debian's packages.

    Raises:
        EnclaveError: saying what was found.
    """
    release = Path("/etc/os-release")
    lines = release.read_text(encoding="utf-8").splitlines() if release.exists() else []
    found = next((line.partition("=")[2].strip('"') for line in lines if line.startswith("ID=")), "an unknown system")
    if found != "debian" or shutil.which("apt-get") is None:
        raise EnclaveError(f"setup of 'optee': it takes everything from Debian's packages, this is {found}; use Debian")


def install(packages: Iterable[str]) -> None:
    """Install packages on this machine.

    Raises:
        EnclaveError: if this user may not.
    """
    wanted = tuple(packages)
    if os.geteuid() != 0:
        line = f"sudo apt-get install --no-install-recommends {' '.join(wanted)}"
        raise EnclaveError(f"setup of 'optee': only root can install packages; run: {line}; and then this again")
    run(["apt-get", "update", "-q"], what="packages of this machine")
    run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *wanted], what="packages of this machine")


def mirror() -> str:
    """Return the mirror of Debian's main archive that this machine is configured with.

    Raises:
        EnclaveError: if there is none, or its lists were never fetched.
    """
    filters = ("Created-By: Packages", "Origin: Debian", "Label: Debian")
    found = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", *filters], what="mirror").split()
    if not found:
        raise EnclaveError("setup of 'optee': apt knows no mirror of Debian's archive here; run: sudo apt-get update")
    return found[0]


class ForeignArchive:
    """Suites of a mirror, for one architecture, with lists of their own below ``folder``."""

    def __init__(self, folder: Path, *, uri: str, suites: Iterable[str], architecture: str) -> None:
        for name in ("lists/partial", "archives/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        sources = folder / "sources.list"
        signed = f"signed-by={_KEYRING}"
        lines = [f"deb [arch={architecture} {signed}] {uri} {suite} main\n" for suite in suites]
        lines += [f"deb-src [{signed}] {uri} {suite} main\n" for suite in suites]
        write_atomic(sources, "".join(lines).encode())
        settings = {
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": folder,
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Sandbox::User": "root",
        }
        self._settings = [option for name, value in settings.items() for option in ("-o", f"{name}={value}")]

    def update(self) -> None:
        """Fetch the lists."""
        run(["apt-get", *self._settings, "update", "-q"], what="lists of packages")

    def depends(self, package: str) -> str:
        """Return the first package that ``package`` depends on."""
        listed = run(["apt-cache", *self._settings, "depends", package], what=package)
        return next(line.split()[1] for line in listed.splitlines() if line.strip().startswith("Depends:"))

    def download(self, packages: Iterable[str], to: Path) -> None:
        """Download packages (``name/suite``) to the folder ``to``."""
        run(["apt-get", *self._settings, "download", "-q", *packages], what="packages for the guest", cwd=to)

    def source(self, package: str, to: Path) -> None:
        """Download a source package (``name/suite``) to the folder ``to``; apt checks it against its signed lists."""
        run(["apt-get", *self._settings, "source", "-q", "--download-only", package], what=package, cwd=to)
