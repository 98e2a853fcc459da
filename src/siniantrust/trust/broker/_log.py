"""The decision log: JSON lines that are only ever added, each bound to the one before it.

``hash`` is SHA-256 over the entry and the hash before it, so that anyone can check the chain; ``mac`` is HMAC-SHA256
over that hash under the broker's key, so that only the broker can add. ``log.head`` holds the number and hash of the
last entry, so that lines missing at the end are noticed. What cannot be noticed from inside is a whole store put back
as it once was: keep the last entry's ``hash`` elsewhere (``sinian keys log`` prints it).
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from siniantrust._files import write_atomic
from siniantrust.errors import TrustError

LOG = "log.jsonl"
HEAD = "log.head"
_LOCK = "lock"
_MAX_LINE_BYTES = 16 << 10
_MAX_DETAIL = 2000
_START = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One decision.

    Attributes:
        number: from 1.
        time: when, RFC 3339, UTC.
        event: ``start``, ``add``, ``release``, ``refuse``, ``revoke-key``, ``revoke-enclave`` or ``recover``.
        key_id: the key that it is about, if any.
        enclave: SHA-256 of the public key of the enclave that it is about, if any.
        lineage: whose versions count upwards, where a version matters.
        version: that version, else 0.
        detail: why, in words.
        previous: ``hash`` of the entry before.
        hash: of this entry.
        mac: of the hash, under the broker's key.
    """

    number: int
    time: str
    event: str
    key_id: str
    enclave: str
    lineage: str
    version: int
    detail: str
    previous: str
    hash: str = ""
    mac: str = ""


_TYPES = {field.name: int if field.name in {"number", "version"} else str for field in fields(Entry)}


def _line(entry: Entry) -> bytes:
    return json.dumps(asdict(entry), sort_keys=True).encode()


def _hash(entry: Entry) -> str:
    content = {name: value for name, value in asdict(entry).items() if name not in {"hash", "mac"}}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class DecisionLog:
    """The log of one store. Several processes may use it: each reads on what the others added.

    Args:
        folder: the store's folder, in which ``create`` made the log.
        key: the key of the MACs.

    Raises:
        TrustError: naming the line at which the log was altered or truncated.
    """

    def __init__(self, folder: Path, *, key: bytes) -> None:
        self._path = folder / LOG
        self._head = folder / HEAD
        self._lock_path = folder / _LOCK
        self._key = key
        self._mutex = threading.Lock()
        self._end_bytes = 0
        self._last = _START
        self.entries: list[Entry] = []
        with self.exclusive():
            pass

    @staticmethod
    def create(folder: Path, *, key: bytes) -> None:
        """Make the files of an empty log."""
        write_atomic(folder / LOG, b"", mode=0o600)
        write_atomic(folder / _LOCK, b"", mode=0o600)
        write_atomic(folder / HEAD, _head_bytes(0, _START, key), mode=0o600)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the log: nobody else adds meanwhile, and what others added before has been read.

        Raises:
            TrustError: if what was added is not the log's continuation.
        """
        with self._mutex, self._lock_path.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._catch_up()
            yield

    def append(
        self,
        event: str,
        *,
        key_id: str = "",
        enclave: str = "",
        lineage: str = "",
        version: int = 0,
        detail: str = "",
    ) -> Entry:
        """Add an entry inside ``exclusive``; it is on the disk when this returns."""
        bare = Entry(
            number=len(self.entries) + 1,
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            event=event,
            key_id=key_id,
            enclave=enclave,
            lineage=lineage,
            version=version,
            detail=" ".join(detail.split())[:_MAX_DETAIL],
            previous=self._last,
        )
        digest = _hash(bare)
        entry = Entry(**{**asdict(bare), "hash": digest, "mac": self._mac(digest)})
        line = _line(entry) + b"\n"
        with self._path.open("ab", buffering=0) as stream:
            stream.write(line)
            os.fsync(stream.fileno())
        self._take(entry, len(line))
        self._write_head()
        return entry

    def _take(self, entry: Entry, size_bytes: int) -> None:
        self.entries.append(entry)
        self._last = entry.hash
        self._end_bytes += size_bytes

    def _write_head(self) -> None:
        write_atomic(self._head, _head_bytes(len(self.entries), self._last, self._key), mode=0o600)

    def _mac(self, digest: str) -> str:
        return hmac.new(self._key, digest.encode(), hashlib.sha256).hexdigest()

    def _catch_up(self) -> None:
        """Read what was added since, check it, and hold it against the head."""
        try:
            with self._path.open("rb") as stream:
                size_bytes = os.fstat(stream.fileno()).st_size
                stream.seek(self._end_bytes)
                added = stream.read()
            head = self._head.read_bytes()
        except OSError as fault:
            raise TrustError(f"log {self._path}: cannot be read ({fault.strerror}); refused") from None
        if size_bytes < self._end_bytes:
            raise TrustError(f"log {self._path}: truncated while it was in use, at line {len(self.entries)}; refused")
        *lines, rest = added.split(b"\n")
        for line in lines:
            self._take(self._check(line), len(line) + 1)
        count = len(self.entries)
        head_count, head_hash = self._read_head(head)
        if head_count > count:
            raise TrustError(f"log {self._path}: truncated after line {count}, it had {head_count} lines; refused")
        # The log may be ahead: the broker was stopped before the head was on the disk. Each line has a MAC of its own.
        if head_hash != self._hash_at(head_count):
            raise TrustError(f"log {self._path}: line {head_count}: not the line that the head names; refused")
        if head_count < count:
            self._write_head()
        if rest:
            self._drop_torn(len(rest))

    def _hash_at(self, number: int) -> str:
        return self.entries[number - 1].hash if number else _START

    def _drop_torn(self, size_bytes: int) -> None:
        """Drop a line that was never finished: nothing follows from it, because what follows waits for its end."""
        with self._path.open("r+b") as stream:
            stream.truncate(self._end_bytes)
            os.fsync(stream.fileno())
        self.append("recover", detail=f"dropped {size_bytes} bytes of a line that was never finished")

    def _check(self, line: bytes) -> Entry:
        number = len(self.entries) + 1
        start = f"log {self._path}: line {number}"
        if len(line) > _MAX_LINE_BYTES:
            raise TrustError(f"{start}: {len(line)} bytes are over the limit of {_MAX_LINE_BYTES}; refused")
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or {name: type(value) for name, value in found.items()} != _TYPES:
            raise TrustError(f"{start}: no entry of the log; it was altered; refused")
        entry = Entry(**found)
        if _line(entry) != line:  # a name may stand twice in JSON, and would be read once
            raise TrustError(f"{start}: not in the form in which this broker writes; it was altered; refused")
        if entry.number != number or entry.previous != self._last:
            raise TrustError(f"{start}: it does not follow the line before it; a line was removed or added; refused")
        if entry.hash != _hash(entry):  # everybody may know it, and JSON may have half a character in it
            raise TrustError(f"{start}: its hash is another; it was altered; refused")
        if not hmac.compare_digest(entry.mac.encode(errors="replace"), self._mac(entry.hash).encode()):
            raise TrustError(f"{start}: this broker did not write it; refused")
        return entry

    def _read_head(self, raw: bytes) -> tuple[int, str]:
        text, _, mac = raw.strip().decode("ascii", "replace").rpartition(" ")
        number, _, digest = text.partition(" ")
        if not hmac.compare_digest(mac.encode(), _head_mac(text, self._key).encode()) or not number.isdecimal():
            raise TrustError(f"log head {self._head}: this broker did not write it; refused")
        return int(number), digest


def _head_mac(text: str, key: bytes) -> str:
    return hmac.new(key, b"head " + text.encode(), hashlib.sha256).hexdigest()


def _head_bytes(number: int, digest: str, key: bytes) -> bytes:
    text = f"{number} {digest}"
    return f"{text} {_head_mac(text, key)}\n".encode()
