"""Files with their own SHA-256 in front, and one process per folder."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from siniantrust._files import write_atomic
from siniantrust.collab._errors import CollabError

_DIGEST_BYTES = 32


def write_checked(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, for ``read_checked``.

    Raises:
        OSError: if the disk is full, for example; what was there before still is.
    """
    write_atomic(path, hashlib.sha256(data).digest() + data, mode=0o600)


def read_checked(path: Path) -> memoryview:
    """Return what ``write_checked`` wrote.

    Raises:
        CollabError: if the file cannot be read or a byte of it was changed.
    """
    try:
        raw = memoryview(path.read_bytes())
    except OSError as fault:
        raise CollabError(f"{path}: cannot be read ({fault.strerror})") from None
    if hashlib.sha256(raw[_DIGEST_BYTES:]).digest() != raw[:_DIGEST_BYTES]:
        raise CollabError(f"{path}: damaged, its SHA-256 is another; remove it to go on from an older one")
    return raw[_DIGEST_BYTES:]


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Hold a folder, so that no second process writes there.

    Raises:
        CollabError: if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CollabError(
                f"folder {folder}: another process uses it; give each edge and the cloud its own"
            ) from None
        yield
