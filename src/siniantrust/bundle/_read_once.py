"""Reading a bundle's files: each once, through handles that follow no link, before anything of it is believed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from siniantrust._files import sha256_bytes
from siniantrust.bundle._manifest import FileEntry
from siniantrust.errors import BundleError

_MOST_FILES = 10_000
_DEEPEST = 8


@contextmanager
def open_folder(path: Path) -> Iterator[int]:
    """Yield a handle of the bundle's folder; what is reached through it stays the same folder if the path changes.

    Raises:
        BundleError: if it is no folder.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise BundleError(f"bundle {path}: cannot be opened as a folder ({error.strerror})") from None
    try:
        yield handle
    finally:
        os.close(handle)


def list_files(folder: int, *, origin: str) -> set[str]:
    """Return the relative paths of all files.

    Raises:
        BundleError: if anything in it is neither a file nor a folder (a link, a device), or there is far too much.
    """
    found: set[str] = set()
    try:
        _collect(folder, "", found, origin)
    except OSError as error:
        raise BundleError(f"{origin}: cannot be listed ({error.strerror})") from None
    return found


def _collect(folder: int, prefix: str, found: set[str], origin: str) -> None:
    if prefix.count("/") > _DEEPEST or len(found) > _MOST_FILES:
        raise BundleError(f"{origin}: far more files or folders than any bundle has")
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            path = f"{prefix}{entry.name}"
            if entry.is_symlink() or not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
                raise BundleError(f"{origin}: {path!r} is neither a file nor a folder; a bundle holds no links")
            if entry.is_dir(follow_symlinks=False):
                inner = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                try:
                    _collect(inner, f"{path}/", found, origin)
                finally:
                    os.close(inner)
            else:
                found.add(path)


def read_file(folder: int, path: str, *, most_bytes: int, origin: str) -> bytes:
    """Read at most ``most_bytes`` of a file, stepping through its folders without following links.

    Raises:
        BundleError: if it is missing, no plain file, unreadable or larger.
    """
    *folders, name = path.split("/")
    handles = [folder]
    try:
        for step in folders:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            handles.append(os.open(step, flags, dir_fd=handles[-1]))
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handle = os.open(name, flags, dir_fd=handles[-1])
        with os.fdopen(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise BundleError(f"{origin}: {path} is no plain file")
            data = stream.read(most_bytes + 1)
    except OSError as error:
        raise BundleError(f"{origin}: {path} cannot be read ({error.strerror})") from None
    finally:
        for each in handles[1:]:
            os.close(each)
    if len(data) > most_bytes:
        raise BundleError(f"{origin}: {path} is larger than {most_bytes} bytes")
    return data


def read_listed(folder: int, files: Mapping[str, FileEntry], *, origin: str) -> dict[str, bytes]:
    """Read every listed file once and check the very bytes that are returned.

    Raises:
        BundleError: naming the first file whose size or SHA-256 differs, or that cannot be read.
    """
    contents = {}
    for path, entry in files.items():
        data = read_file(folder, path, most_bytes=entry.size_bytes, origin=origin)
        digest = sha256_bytes(data)
        if digest != entry.sha256:
            raise BundleError(
                f"{origin}: {path} was changed: expected {entry.size_bytes} bytes with SHA-256 {entry.sha256[:16]}…, "
                f"found {len(data)} bytes with {digest[:16]}…"
            )
        contents[path] = data
    return contents
