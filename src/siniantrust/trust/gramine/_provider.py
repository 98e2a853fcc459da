"""An SGX enclave of Gramine that runs the enclave service. Untested on hardware."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, ClassVar

from siniantrust.errors import EnclaveError
from siniantrust.trust._types import EnclaveSpec
from siniantrust.trust.gramine._manifest import NAME
from siniantrust.trust.service import ServiceEnclave
from siniantrust.trust.tls import Address

_COMMAND = "gramine-sgx"
_START_TIMEOUT_S = 300.0
_PAUSE_S = 0.1
_GRACE_S = 5.0
_LAST_WORDS_BYTES = 2000


class GramineEnclave(ServiceEnclave):
    """The enclave service in Gramine; its evidence is an SGX quote.

    Where ``spec.folder`` says so, the enclave is started from the signed manifest there, and ended by ``close``; else
    it has to run already.
    """

    kinds: ClassVar[tuple[str, ...] | None] = ("sgx",)

    def __init__(self, spec: EnclaveSpec) -> None:
        self._process: _Process | None = None
        address, _ = self.wanted(spec)
        if spec.folder is not None:
            self._process = _Process(spec.folder)
        try:
            if self._process is not None:
                self._process.wait_until_it_listens(address)
            super().__init__(spec)
        except BaseException:
            self._end_process()
            raise

    def close(self) -> None:
        """End the session, and the enclave if it was started here; calling it again does nothing."""
        super().close()
        self._end_process()

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.end()


class _Process:
    """``gramine-sgx`` over a folder with a signed manifest."""

    def __init__(self, folder: Path) -> None:
        command = shutil.which(_COMMAND)
        if command is None:
            raise EnclaveError(f"gramine enclave: {_COMMAND} is not on the path; install Gramine, or leave out folder")
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        try:
            self._process = subprocess.Popen(
                [command, NAME],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._words,
                start_new_session=True,  # an interrupt of this program lets it end the enclave itself
            )
        except OSError as fault:
            self._words.close()
            raise EnclaveError(f"gramine enclave: {folder}: cannot be started there ({fault.strerror})") from None

    def wait_until_it_listens(self, address: Address) -> None:
        """Wait until something listens at ``address``; whether it is the enclave, its evidence will say.

        Raises:
            EnclaveError: if the process ends before, or takes too long.
        """
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if (code := self._process.poll()) is not None:
                raise EnclaveError(f"gramine enclave: {_COMMAND} ended with exit code {code} ({self._last_words()})")
            with suppress(OSError), socket.create_connection(address, timeout=_PAUSE_S):
                return
            time.sleep(_PAUSE_S)
        raise EnclaveError(f"gramine enclave: nothing listens at {address} after {_START_TIMEOUT_S:.0f} s")

    def end(self) -> None:
        """End the process, first gently; calling it again does nothing."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._words.close()

    def _last_words(self) -> str:
        size_bytes = self._words.seek(0, 2)
        self._words.seek(max(size_bytes - _LAST_WORDS_BYTES, 0))
        return " ".join(self._words.read().decode("utf-8", "replace").split()) or "it said nothing"
