"""The emulated machine: QEMU with its secure world, and the link to the agent in the guest."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from enum import IntEnum
from pathlib import Path

from siniantrust.errors import ChannelError, EnclaveError, EnclaveLostError
from siniantrust.trust.optee._cache import QEMU, SETUP, Machine

_BOOT_TIMEOUT_S = 180.0
_CALL_TIMEOUT_S = 600.0
_GRACE_S = 10.0
_POLL_S = 0.5
_RECEIVE_BYTES = 1 << 20
# Where the firmware's last step (guest/bl33.S) expects the kernel; RAM begins at 1 GiB.
_KERNEL_ADDRESS = 0x44000000
_INITRD_ADDRESS = 0x50000000
_MEMORY_MIB = 768
_REQUEST = struct.Struct("<5I")
_ANSWER = struct.Struct("<2I")
# As in the agent, guest/agent.c.
MAX_SESSIONS = 64

# Of the GlobalPlatform TEE Client API, table 4-2.
OUT_OF_MEMORY = 0xFFFF000C


class _Operation(IntEnum):
    INSTALL = 1
    OPEN = 2
    INVOKE = 3
    CLOSE = 4
    HELLO = 5


class TeeFault(Exception):  # noqa: N818 - it becomes one of our errors where it is known what was asked
    """The secure world, or the agent on the way there, answered with a code that is not success."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code:#010x}")
        self.code = code


class Guest:
    """A started machine, whose agent answers. Its caller sends one request at a time.

    Raises:
        EnclaveError: if QEMU is missing or the guest does not answer in time.
    """

    def __init__(self, machine: Machine) -> None:
        if shutil.which(QEMU) is None:
            raise EnclaveError(f"enclave 'optee': {QEMU} is not installed; run: {SETUP}")
        self._folder = tempfile.TemporaryDirectory(prefix="siniantrust-optee-")
        self._console, self._errors = (Path(self._folder.name, name) for name in ("console", "errors"))
        try:
            self._process, self._link = self._start(machine)
            try:
                self._request(_Operation.HELLO, timeout_s=_BOOT_TIMEOUT_S)
            except BaseException:
                self._link.close()
                self._process.kill()
                self._process.wait()
                raise
        except BaseException:
            self._folder.cleanup()
            raise

    @property
    def pid(self) -> int:
        """QEMU's process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the machine runs."""
        return self._process.poll() is None

    def _start(self, machine: Machine) -> tuple[subprocess.Popen[bytes], socket.socket]:
        path = Path(self._folder.name, "link")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, self._errors.open("wb") as stream:
            listener.bind(str(path))
            listener.listen(1)
            listener.settimeout(_POLL_S)
            process = subprocess.Popen(
                [QEMU, *_arguments(machine, link=path, console=self._console)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
            )
            try:
                while process.poll() is None:
                    with contextlib.suppress(TimeoutError):
                        return process, listener.accept()[0]
            except BaseException:  # an interrupt
                process.kill()
                process.wait()
                raise
        raise EnclaveError(f"enclave 'optee': {QEMU} did not start{self._last_words()}")

    def install(self, uuid: str, application: bytes) -> str:
        """Put a signed application into the guest's file system; return the SHA-256 of what lies there then."""
        return self._request(_Operation.INSTALL, uuid.encode() + application, most=64).decode()

    def open(self, uuid: str) -> int:
        """Open a session with an installed application; return its handle.

        Raises:
            TeeFault: if the secure world refuses it: its signature is wrong, or there is no memory for it.
        """
        return int.from_bytes(self._request(_Operation.OPEN, uuid.encode()), "little")

    def invoke(self, handle: int, command: int, data: bytes | bytearray, *, most: int) -> bytearray:
        """Call an application; ``most`` bytes may come back.

        Raises:
            TeeFault: if it answers with anything but success.
        """
        return self._request(_Operation.INVOKE, data, handle=handle, command=command, most=most)

    def close_session(self, handle: int) -> None:
        """End a session; the application's memory is free then."""
        self._request(_Operation.CLOSE, handle=handle)

    def _request(
        self,
        operation: _Operation,
        data: bytes | bytearray = b"",
        *,
        handle: int = 0,
        command: int = 0,
        most: int = 4,
        timeout_s: float = _CALL_TIMEOUT_S,
    ) -> bytearray:
        deadline_s = time.monotonic() + timeout_s
        try:
            self._link.settimeout(timeout_s)
            self._link.sendall(_REQUEST.pack(operation, handle, command, len(data), most) + data)
            code, size = _ANSWER.unpack(self._receive(_ANSWER.size, deadline_s))
            if size > most:
                raise ChannelError(f"enclave 'optee': asked for {most} bytes at most, the guest sends {size}")
            answer = self._receive(size, deadline_s)
        except TimeoutError:
            raise EnclaveLostError(
                f"enclave 'optee' (pid {self.pid}): no answer within {timeout_s:.0f} s{self._last_words()}; "
                "launch another one"
            ) from None
        except OSError:
            raise EnclaveLostError(
                f"enclave 'optee' (pid {self.pid}): its machine is gone{self._last_words()}; launch another one"
            ) from None
        if code:
            raise TeeFault(code)
        return answer

    def _receive(self, size: int, deadline_s: float) -> bytearray:
        received = bytearray()
        while len(received) < size:
            self._link.settimeout(max(deadline_s - time.monotonic(), 1e-3))
            piece = self._link.recv(min(size - len(received), _RECEIVE_BYTES))
            if not piece:
                raise ConnectionResetError
            received += piece
        return received

    def _last_words(self) -> str:
        """Return the last line that QEMU wrote, or else the guest's console, in brackets; nothing if there is none."""
        for path in (self._errors, self._console):
            with contextlib.suppress(OSError):
                lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                if lines:
                    return f" ({lines[-1].strip()})"
        return ""

    def close(self) -> None:
        """End the machine: the agent powers it off when the link ends; it is killed where that takes too long."""
        self._link.close()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()


def _arguments(machine: Machine, *, link: Path, console: Path) -> list[str]:
    """Return QEMU's arguments: one core, no network, no disk, no monitor; one serial port to the host."""
    initrd_bytes = machine.initrd.stat().st_size
    command_line = f"console=ttyAMA0 initrd={_INITRD_ADDRESS:#x},{initrd_bytes} panic=-1 quiet loglevel=1"
    return [
        *("-M", "virt,secure=on,gic-version=3", "-cpu", "cortex-a57", "-smp", "1", "-m", str(_MEMORY_MIB)),
        *("-nodefaults", "-nographic", "-no-reboot", "-monitor", "none", "-net", "none"),
        *("-bios", str(machine.firmware), "-kernel", str(machine.kernel), "-append", command_line),
        *("-device", f"loader,file={machine.kernel},addr={_KERNEL_ADDRESS:#x},force-raw=on"),
        *("-device", f"loader,file={machine.initrd},addr={_INITRD_ADDRESS:#x},force-raw=on"),
        *("-serial", f"file:{console}", "-serial", "null"),
        *("-global", "virtio-mmio.force-legacy=false", "-device", "virtio-serial-device"),
        *("-chardev", f"socket,path={link},id=link", "-device", "virtserialport,chardev=link,name=siniantrust"),
    ]
