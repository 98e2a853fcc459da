"""The way to a TPM: the kernel's resource manager (/dev/tpmrm0), or the socket of an emulator (swtpm)."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
import weakref
from collections.abc import Sequence
from enum import IntEnum
from types import TracebackType
from typing import Protocol, Self

from siniantrust.trust.attestation.tpm2._codes import RETRYABLE, TpmError
from siniantrust.trust.attestation.tpm2._wire import (
    HEAD_BYTES,
    MAX_BYTES,
    Session,
    decode_response,
    encode_command,
    response_code,
    response_size,
)

DEFAULT_DEVICE = "/dev/tpmrm0"
_EMULATOR = "swtpm:"
_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.5


class _Transport(Protocol):
    """Bytes to a TPM and back. ``receive`` waits until the deadline and returns nothing once the other end is gone."""

    def send(self, command: bytes, deadline: float) -> None: ...

    def receive(self, size_bytes: int, deadline: float) -> bytes: ...

    def close(self) -> None: ...


def _left_s(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


class _CharacterDevice:
    """The kernel's device file: one write is a command, and reads that follow give its response."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)

    def _wait(self, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(self._file, event)
        if not poll.poll(_left_s(deadline) * 1e3):
            raise TimeoutError

    def send(self, command: bytes, deadline: float) -> None:
        self._wait(select.POLLOUT, deadline)
        os.write(self._file, command)  # all or nothing: a driver takes no command in pieces

    def receive(self, size_bytes: int, deadline: float) -> bytes:
        self._wait(select.POLLIN, deadline)
        return os.read(self._file, size_bytes)

    def close(self) -> None:
        os.close(self._file)


class _Socket:
    """The emulator's data channel: ``HOST:PORT``, or the path of a Unix socket."""

    def __init__(self, address: str, timeout_s: float) -> None:
        host, colon, port = address.rpartition(":")
        if colon and port.isdecimal():
            self._socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        else:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.settimeout(timeout_s)
            try:
                self._socket.connect(address)
            except OSError:
                self._socket.close()
                raise

    def send(self, command: bytes, deadline: float) -> None:
        self._socket.settimeout(_left_s(deadline))
        self._socket.sendall(command)

    def receive(self, size_bytes: int, deadline: float) -> bytes:
        self._socket.settimeout(_left_s(deadline))
        return self._socket.recv(size_bytes)

    def close(self) -> None:
        self._socket.close()


def _whole_response(transport: _Transport, command: bytes, deadline: float) -> bytes:
    transport.send(command, deadline)
    response = b""
    size_bytes = HEAD_BYTES
    while len(response) < size_bytes:
        # All that may come is asked for: older kernels drop what a small buffer leaves over.
        piece = transport.receive(MAX_BYTES - len(response), deadline)
        if not piece:
            raise OSError("the other end closed it")
        response += piece
        if len(response) >= HEAD_BYTES:
            size_bytes = response_size(response[:HEAD_BYTES])
    response_code(response)  # makes sure that nothing follows
    return response


class Tpm:
    """One connection to a TPM. Calls from several threads come one after the other.

    Args:
        where: a device file, or ``swtpm:HOST:PORT`` or ``swtpm:PATH`` for the socket of an emulator.
        timeout_s: the longest that one command may take, retries included; some TPMs need half a minute for an RSA key.

    Raises:
        TpmError: if it cannot be reached.
    """

    def __init__(self, where: str = DEFAULT_DEVICE, *, timeout_s: float = 60.0) -> None:
        self.where = where
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._transport: _Transport | None = None
        try:
            if where.startswith(_EMULATOR):
                self._transport = _Socket(where.removeprefix(_EMULATOR), timeout_s)
            else:
                self._transport = _CharacterDevice(where)
        except (OSError, OverflowError, ValueError) as fault:
            raise TpmError(
                f"TPM {where}: it cannot be opened ({fault}); check that it is there and that this "
                "user may use it (group tss on most systems)"
            ) from None
        self._release = weakref.finalize(self, self._transport.close)  # who opens an attester by name closes nothing

    @property
    def alive(self) -> bool:
        """Whether the connection can still be used."""
        return self._transport is not None

    def call(
        self,
        command: IntEnum,
        handles: Sequence[int] = (),
        parameters: bytes = b"",
        *,
        sessions: Sequence[Session] = (),
        response_handles: int = 0,
    ) -> tuple[list[int], bytes]:
        """Send a command and return the handles and parameters of its response.

        Raises:
            TpmError: if the TPM refuses it, is lost, or does not answer in time; in the last two cases the connection
                is closed, since what comes next on it could be the answer to another command.
        """
        raw = encode_command(command, handles, sessions, parameters)
        deadline = time.monotonic() + self._timeout_s
        pause_s = _FIRST_PAUSE_S
        with self._lock:
            while True:
                response = self._exchange(raw, command, deadline)
                if response_code(response) not in RETRYABLE or time.monotonic() + pause_s >= deadline:
                    return decode_response(response, command, handles=response_handles, sessions=len(sessions))
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _exchange(self, raw: bytes, command: IntEnum, deadline: float) -> bytes:
        if self._transport is None:
            raise TpmError(f"TPM {self.where}: the connection is closed; open it again")
        try:
            return _whole_response(self._transport, raw, deadline)
        except BaseException as fault:
            self.close()
            if isinstance(fault, TimeoutError):
                raise TpmError(
                    f"TPM {self.where}: no answer to {command.name} within {self._timeout_s:g} s; open it again"
                ) from None
            if isinstance(fault, OSError):
                raise TpmError(f"TPM {self.where}: lost during {command.name} ({fault}); open it again") from None
            raise

    def close(self) -> None:
        """Close the connection; calling it again does nothing."""
        self._transport = None
        self._release()

    def __enter__(self) -> Self:
        """Return the connection, which is closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()
