"""The pad ledger: which queries may still be masked. A number is spent on disk before its pad is made.

Pads are a function of key, query and value; using one twice gives the host the difference of two inputs. So query
numbers are handed out once and for all: the ledger writes the end of a stretch of numbers to disk, forces it there, and
only then hands the stretch out. After a crash the numbers of an unfinished stretch are lost, never handed out again.

Records are chained by HMAC-SHA256 under a key of the session: a record of another session, a changed one, or one that
is missing in the middle is found. A file that the host rolled back while nobody ran looks like an older one; whoever
reopens a ledger therefore says which stretch it must at least have reached, from a counter that the host cannot turn
back. Without one, a new session with a new key is the only safe way.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
import threading
from pathlib import Path
from typing import Self

from siniantrust.errors import TrustError

_MAGIC = b"SNPADLG1"
_RECORD = struct.Struct("<QQ32s")
SESSION_BYTES = 16
STRIDE = 256


class PadLedger:
    """Hands out query numbers, each at most once in the life of its session. Safe for several threads."""

    def __init__(self, path: Path, handle: int, chain: bytes, key: bytes, *, count: int, end: int) -> None:
        """Use ``create`` or ``reopen``."""
        self._path = path
        self._handle = handle
        self._chain = chain
        self._key = key
        self._count = count
        self._end = end
        self._next = end
        self._lock = threading.Lock()
        self._broken: str | None = None

    @classmethod
    def create(cls, path: Path, *, session: bytes, key: bytes) -> Self:
        """Begin the ledger of a new session.

        Raises:
            TrustError: if the file exists or cannot be made.
        """
        _check(session, key)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            head = _MAGIC + session
            os.write(handle, head)
            os.fsync(handle)
            _sync_folder(path.parent)
        except OSError as fault:
            raise TrustError(f"pad ledger {path}: cannot be begun ({fault.strerror})") from None
        return cls(path, handle, _first(key, head), key, count=0, end=0)

    @classmethod
    def reopen(cls, path: Path, *, session: bytes, key: bytes, at_least: int) -> Self:
        """Go on with a ledger; numbers that were handed out before, or may have been, are not handed out again.

        Args:
            path: its file.
            session: the session that it must be of.
            key: the session's ledger key.
            at_least: how many stretches it must hold, from a counter that the host cannot turn back.

        Raises:
            TrustError: if it is of another session, was changed, or is shorter than that.
        """
        _check(session, key)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            raw = path.read_bytes()
        except OSError as fault:
            raise TrustError(f"pad ledger {path}: cannot be read ({fault.strerror})") from None
        head = _MAGIC + session
        try:
            if raw[: len(head)] != head:
                raise TrustError(f"pad ledger {path}: it is of another session; begin a new session")  # noqa: TRY301
            chain, count, end = _first(key, head), 0, 0
            whole = (len(raw) - len(head)) // _RECORD.size * _RECORD.size
            for number, stretch_end, code in _RECORD.iter_unpack(raw[len(head) : len(head) + whole]):
                chain = _next(key, chain, number, stretch_end)
                if not hmac.compare_digest(chain, code) or number != count or stretch_end <= end:
                    raise TrustError(  # noqa: TRY301
                        f"pad ledger {path}: record {count} does not authenticate; begin a new session"
                    )
                count, end = count + 1, stretch_end
            if count < at_least:
                raise TrustError(  # noqa: TRY301
                    f"pad ledger {path}: it holds {count} stretches, expected at least {at_least}; it was cut off or "
                    "turned back, begin a new session"
                )
            # What a crash left of a record that was never handed out.
            os.ftruncate(handle, len(head) + whole)
            os.lseek(handle, 0, os.SEEK_END)
        except BaseException:
            os.close(handle)
            raise
        return cls(path, handle, chain, key, count=count, end=end)

    @property
    def stretches(self) -> int:
        """How many stretches are on disk: what a counter has to remember."""
        return self._count

    def take(self) -> int:
        """Return a query number that was never returned before and never will be again.

        Raises:
            TrustError: if the next stretch cannot be written; nothing is handed out from then on.
        """
        with self._lock:
            if self._broken is not None:
                raise TrustError(self._broken)
            if self._next == self._end:
                self._extend()
            self._next += 1
            return self._next - 1

    def _extend(self) -> None:
        end = self._end + STRIDE
        chain = _next(self._key, self._chain, self._count, end)
        size = len(_MAGIC) + SESSION_BYTES + self._count * _RECORD.size
        try:
            if os.fstat(self._handle).st_size != size:
                raise OSError(0, "its size changed under us")  # noqa: TRY301 - takes the exit of the others
            record = _RECORD.pack(self._count, end, chain)
            if os.pwrite(self._handle, record, size) != len(record):
                raise OSError(0, "it was written in part")  # noqa: TRY301 - as above
            os.fsync(self._handle)
        except OSError as fault:
            self._broken = f"pad ledger {self._path}: cannot be written ({fault.strerror}); begin a new session"
            raise TrustError(self._broken) from None
        self._chain, self._count, self._end = chain, self._count + 1, end

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        with self._lock:
            if self._handle >= 0:
                os.close(self._handle)
            self._handle = -1
            self._broken = f"pad ledger {self._path}: it is closed"


def _check(session: bytes, key: bytes) -> None:
    if len(session) != SESSION_BYTES or len(key) < hashlib.sha256().digest_size:
        raise TrustError(f"pad ledger: expected a session of {SESSION_BYTES} bytes and a key of at least 32")


def _first(key: bytes, head: bytes) -> bytes:
    return hmac.digest(key, head, "sha256")


def _next(key: bytes, chain: bytes, number: int, end: int) -> bytes:
    return hmac.digest(key, chain + struct.pack("<QQ", number, end), "sha256")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
