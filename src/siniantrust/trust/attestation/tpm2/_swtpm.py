"""An emulated TPM (swtpm) for tests, benchmarks and demonstrations: its host reads and changes all of it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from siniantrust.trust.attestation.tpm2._codes import TpmError
from siniantrust.trust.attestation.tpm2._constants import Command
from siniantrust.trust.attestation.tpm2._device import Tpm
from siniantrust.trust.attestation.tpm2._wire import uint

_START_S = 20.0
_SETUP_S = 120.0
_POLL_S = 0.01
_CONTROL_INIT = uint(4, 2) + uint(4, 0)
_CLEAR = uint(2, 0)


class Swtpm:
    """A running emulator with a state of its own, which vanishes when it is closed.

    Args:
        authority: folder of a certificate authority, made at first use, that certifies the endorsement key (RSA-2048);
            its certificates are in ``issuercert.pem`` and ``swtpm-localca-rootca-cert.pem``. Without one the TPM has no
            certificate.

    Raises:
        TpmError: if swtpm is not installed or does not start.
    """

    def __init__(self, *, authority: Path | None = None) -> None:
        program = _installed("swtpm")
        self._folder = Path(tempfile.mkdtemp(prefix="swtpm"))
        try:
            if authority is not None:
                _manufacture(self._folder, authority)
            self._data, self._control = self._folder / "data", self._folder / "control"
            self._log = self._folder / "log"
            command = [program, "socket", "--tpm2", "--tpmstate", f"dir={self._folder}"]
            command += ["--server", f"type=unixio,path={self._data}", "--ctrl", f"type=unixio,path={self._control}"]
            command += ["--log", f"file={self._log},level=1", "--flags", "not-need-init,startup-clear"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except BaseException:
            shutil.rmtree(self._folder)
            raise
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_S
        while not (_listens(self._data) and _listens(self._control)):
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._log.read_text(errors="replace") if self._log.exists() else ""
                raise TpmError(f"swtpm: it did not start: {' '.join(said.split())[-300:] or 'it gave no reason'}")
            time.sleep(_POLL_S)

    @property
    def where(self) -> str:
        """What to give to ``Tpm``; one connection at a time."""
        return f"swtpm:{self._data}"

    @property
    def pid(self) -> int:
        """The emulator's process."""
        return self._process.pid

    def reset(self, tpm: Tpm) -> None:
        """Reset the TPM as a reboot of its machine does, by way of an open connection to it."""
        tpm.call(Command.SHUTDOWN, parameters=_CLEAR)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
            control.settimeout(_START_S)
            control.connect(str(self._control))
            control.sendall(_CONTROL_INIT)
            control.recv(4)  # whether it was reset shows in the next command, which a TPM takes once only
        tpm.call(Command.STARTUP, parameters=_CLEAR)

    def close(self) -> None:
        """End the emulator and remove its state; calling it again does nothing."""
        self._process.kill()  # its state goes too: there is nothing to save
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Return the emulator, which is closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def _listens(path: Path) -> bool:
    """Return whether something accepts connections at a Unix socket, which is there a moment before that."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _installed(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise TpmError(f"{program} is not installed; to emulate a TPM, run: sudo apt-get install swtpm swtpm-tools")
    return path


def _manufacture(state: Path, authority: Path) -> None:
    """Have swtpm's own tools make a TPM's state with a certified endorsement key, as a maker of TPMs does."""
    authority.mkdir(parents=True, exist_ok=True)
    options = authority / "options"
    options.write_text("--platform-manufacturer SinianTrust\n--platform-version 1\n--platform-model swtpm\n")
    configuration = authority / "authority.conf"
    configuration.write_text(
        f"statedir = {authority}\nsigningkey = {authority}/signkey.pem\nissuercert = {authority}/issuercert.pem\n"
        f"certserial = {authority}/certserial\n"
    )
    setup = authority / "setup.conf"
    setup.write_text(
        f"create_certs_tool = {_installed('swtpm_localca')}\ncreate_certs_tool_config = {configuration}\n"
        f"create_certs_tool_options = {options}\n"
    )
    command = [_installed("swtpm_setup"), "--tpm2", "--tpmstate", str(state), "--config", str(setup)]
    command += ["--create-ek-cert", "--pcr-banks", "sha256", "--lock-nvram"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SETUP_S)
    if done.returncode:
        raise TpmError(f"swtpm_setup: it failed: {' '.join((done.stdout + done.stderr).split())[-300:]}")
