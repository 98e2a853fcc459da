"""The TPM's wire format: big-endian integers and sized buffers, read strictly (TPM 2.0 Library, Part 1, section 18).

The maintained Python binding (tpm2-pytss) has no wheels and needs a C library beside it; the two dozen commands that
attestation needs are little code, and every byte that a peer sends passes through ``Reader``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from siniantrust.trust.attestation.tpm2._codes import TpmError, refusal
from siniantrust.trust.attestation.tpm2._constants import Handle

MAX_BYTES = 4096
HEAD_BYTES = 10
_NO_SESSIONS = 0x8001
_SESSIONS = 0x8002
_HEAD = struct.Struct(">HII")
_CONTINUE_SESSION = 1


class Reader:
    """Reads a structure from its start to its very end; anything too short or too long is an error that names it."""

    def __init__(self, raw: bytes, what: str) -> None:
        self._raw = raw
        self._at = 0
        self._what = what

    def fault(self, expected: str, found: object) -> TpmError:
        """Return the error for a field that is not as expected."""
        return TpmError(f"TPM {self._what}: expected {expected}, found {found} before byte {self._at}")

    def take(self, size_bytes: int) -> bytes:
        """Return the next bytes."""
        left = len(self._raw) - self._at
        if size_bytes > left:
            raise self.fault(f"{size_bytes} more bytes", left)
        self._at += size_bytes
        return self._raw[self._at - size_bytes : self._at]

    def uint(self, size_bytes: int) -> int:
        """Return the next bytes as an unsigned integer."""
        return int.from_bytes(self.take(size_bytes), "big")

    def expect(self, size_bytes: int, value: int, name: str) -> None:
        """Read an integer that must be ``value``."""
        found = self.uint(size_bytes)
        if found != value:
            raise self.fault(f"{name} {value:#x}", f"{found:#x}")

    def sized(self, *, at_most: int) -> bytes:
        """Return the content of a buffer that starts with its size in two bytes (TPM2B)."""
        size_bytes = self.uint(2)
        if size_bytes > at_most:
            raise self.fault(f"a buffer of at most {at_most} bytes", size_bytes)
        return self.take(size_bytes)

    def exactly(self, size_bytes: int, name: str) -> bytes:
        """Return the content of a sized buffer whose size is known."""
        found = self.sized(at_most=MAX_BYTES)
        if len(found) != size_bytes:
            raise self.fault(f"{name} of {size_bytes} bytes", len(found))
        return found

    def rest(self) -> bytes:
        """Return everything that is left."""
        return self.take(len(self._raw) - self._at)

    def end(self) -> None:
        """Make sure that nothing is left."""
        if self._at != len(self._raw):
            raise self.fault("nothing more", f"{len(self._raw) - self._at} bytes")


def uint(size_bytes: int, value: int) -> bytes:
    """Return an unsigned integer's bytes."""
    return value.to_bytes(size_bytes, "big")


def sized(content: bytes) -> bytes:
    """Return a buffer that starts with its size in two bytes (TPM2B)."""
    return uint(2, len(content)) + content


@dataclass(frozen=True, slots=True)
class Session:
    """What authorises the use of one handle: a policy session, or (by default) the empty password."""

    handle: int = Handle.PASSWORD

    def encode(self) -> bytes:
        """Return its entry in a command's authorisation area: handle, no nonce, attributes, no HMAC."""
        attributes = 0 if self.handle == Handle.PASSWORD else _CONTINUE_SESSION
        return uint(4, self.handle) + sized(b"") + uint(1, attributes) + sized(b"")


def encode_command(code: IntEnum, handles: Sequence[int], sessions: Sequence[Session], parameters: bytes) -> bytes:
    """Return a command's bytes.

    Raises:
        TpmError: if it is longer than any TPM takes.
    """
    area = b"".join(session.encode() for session in sessions)
    body = b"".join(uint(4, handle) for handle in handles) + (uint(4, len(area)) + area if sessions else b"")
    size_bytes = HEAD_BYTES + len(body) + len(parameters)
    if size_bytes > MAX_BYTES:
        raise TpmError(f"TPM {code.name}: expected a command of at most {MAX_BYTES} bytes, found {size_bytes}")
    return _HEAD.pack(_SESSIONS if sessions else _NO_SESSIONS, size_bytes, code) + body + parameters


def response_size(head: bytes) -> int:
    """Return the size of the whole response that starts with ``head``.

    Raises:
        TpmError: if that is no size of a response.
    """
    size_bytes = int.from_bytes(head[2:6], "big")
    if len(head) != HEAD_BYTES or not HEAD_BYTES <= size_bytes <= MAX_BYTES:
        raise TpmError(f"TPM response: expected a size of {HEAD_BYTES} to {MAX_BYTES} bytes, found {size_bytes}")
    return size_bytes


def response_code(raw: bytes) -> int:
    """Return the response code of a response, whose size must be the one that it says."""
    if response_size(raw[:HEAD_BYTES]) != len(raw):
        raise TpmError(f"TPM response: expected {response_size(raw[:HEAD_BYTES])} bytes, found {len(raw)}")
    return int.from_bytes(raw[6:HEAD_BYTES], "big")


def decode_response(raw: bytes, command: IntEnum, *, handles: int, sessions: int) -> tuple[list[int], bytes]:
    """Return the handles and the parameters of a response.

    Raises:
        TpmError: if the TPM refused the command, or this is no well-formed response to it.
    """
    code = response_code(raw)
    if code:
        raise refusal(command.name, code)
    what = f"response to {command.name}"
    reader = Reader(raw, what)
    reader.expect(2, _SESSIONS if sessions else _NO_SESSIONS, "tag")
    reader.take(HEAD_BYTES - 2)
    found = [reader.uint(4) for _ in range(handles)]
    if not sessions:
        return found, reader.rest()
    parameters = reader.take(reader.uint(4))
    for _ in range(sessions):
        reader.sized(at_most=64)  # nonce
        reader.take(1)  # attributes
        reader.sized(at_most=64)  # HMAC: empty, since no session here has a key
    reader.end()
    return found, parameters
