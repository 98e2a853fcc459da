"""Files with their own SHA-256 in front, and one process per folder."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from pathlib import Path

from siniantrust._files import sole_user, write_atomic
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


def hold(folder: Path) -> AbstractContextManager[None]:
    """Hold the folder of one side of a run.

    Raises:
        CollabError: if another process holds it.
    """
    return sole_user(
        folder, CollabError(f"folder {folder}: another process uses it; give each edge and the cloud its own")
    )
