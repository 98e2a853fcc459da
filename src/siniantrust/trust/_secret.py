"""Memory for keys that the kernel itself does not map: ``memfd_secret(2)``, Linux 5.14.

Such pages are removed from the kernel's direct map, so that /proc/PID/mem, process_vm_readv and ptrace fail on them
even for root. They protect keys at rest: while a frame is encrypted, OpenSSL holds the expanded key in its own memory
(and clears it after that frame, because every frame uses a fresh cipher context).
"""

from __future__ import annotations

import ctypes
import mmap
import os
from types import TracebackType
from typing import Self

# The number is the same on every architecture that has the call (asm-generic/unistd.h).
_NR_MEMFD_SECRET = 447
_O_CLOEXEC = os.O_CLOEXEC


class SecretMemory:
    """One page for keys, zeroed on ``close``.

    Where ``memfd_secret`` is missing, it is an ordinary page, and ``reason`` says why; the caller decides whether that
    is acceptable.
    """

    def __init__(self) -> None:
        self.size_bytes = mmap.PAGESIZE
        self.reason: str | None = None
        try:
            self._pages = _map_secret(self.size_bytes)
        except OSError as fault:
            self.reason = f"memfd_secret: {fault.strerror}"
            self._pages = mmap.mmap(-1, self.size_bytes)
        self._used = 0
        self._closed = False
        self._views: list[memoryview] = []

    def allocate(self, size_bytes: int) -> memoryview:
        """Return the next ``size_bytes`` of the page as a writable view; it ends with ``close``."""
        if self._used + size_bytes > self.size_bytes:
            raise ValueError(f"secret memory holds {self.size_bytes} bytes, asked for {self._used + size_bytes}")
        view = memoryview(self._pages)[self._used : self._used + size_bytes]
        self._used += size_bytes
        self._views.append(view)
        return view

    def close(self) -> None:
        """Zero and unmap the page; calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        self._pages[:] = bytes(self.size_bytes)
        for view in self._views:
            view.release()
        self._pages.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        """Close."""
        self.close()


def _map_secret(size_bytes: int) -> mmap.mmap:
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.syscall(_NR_MEMFD_SECRET, _O_CLOEXEC)
    if handle < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    try:
        os.ftruncate(handle, size_bytes)
        pages = mmap.mmap(handle, size_bytes)
    finally:
        os.close(handle)
    pages[:] = bytes(size_bytes)  # touched now: the first touch asks the kernel for pages, which a sandbox may forbid
    return pages


def wipe(secret: bytes) -> None:
    """Overwrite the bytes of an immutable object that a library returned a secret in.

    CPython keeps them in the object itself, so that the caller must be its only holder.
    """
    ctypes.memset(ctypes.cast(ctypes.c_char_p(secret), ctypes.c_void_p), 0, len(secret))
