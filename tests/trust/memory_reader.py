"""A program that tries to get at another process's memory, as root or as another user.

Run as ``python memory_reader.py PID ADDRESS USER``: ``USER`` is who it becomes first (0 stays root; with
``same`` it stays but gives up its capabilities, as another program of the same user has none). ``ADDRESS`` is
``PID``'s to read, in hexadecimal. It prints one JSON object: what each attempt came to.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable

from siniantrust.trust.process import _limits

_PTRACE_ATTACH = 16
_PTRACE_DETACH = 17
_SIZE_BYTES = 16

_libc = ctypes.CDLL(None, use_errno=True)


class _Piece(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _fail(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")


def _trace(pid: int, _address: int) -> None:
    if _libc.ptrace(_PTRACE_ATTACH, pid, None, None) != 0:
        _fail("ptrace")
    os.waitpid(pid, 0x40000000)  # __WALL: it is no child of ours
    _libc.ptrace(_PTRACE_DETACH, pid, None, None)


def _through_proc(pid: int, address: int) -> None:
    handle = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        if len(os.pread(handle, _SIZE_BYTES, address)) != _SIZE_BYTES:
            raise OSError(0, "nothing was read")
    finally:
        os.close(handle)


def _by_system_call(pid: int, address: int) -> None:
    buffer = ctypes.create_string_buffer(_SIZE_BYTES)
    ours = _Piece(ctypes.addressof(buffer), _SIZE_BYTES)
    theirs = _Piece(address, _SIZE_BYTES)
    if _libc.process_vm_readv(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0) != _SIZE_BYTES:
        _fail("process_vm_readv")


ATTEMPTS: dict[str, Callable[[int, int], None]] = {
    "ptrace": _trace,
    "/proc/PID/mem": _through_proc,
    "process_vm_readv": _by_system_call,
}


def main() -> None:
    """Become the user, try everything, and say how it went."""
    pid, address, user = int(sys.argv[1]), int(sys.argv[2], 16), sys.argv[3]
    if user == "same":
        _limits.drop_privileges()
    elif user != "0":
        os.setgroups([])
        os.setgid(int(user))
        os.setuid(int(user))
    found = {}
    for name, attempt in ATTEMPTS.items():
        try:
            attempt(pid, address)
        except OSError as fault:
            found[name] = f"refused: {fault}"
        else:
            found[name] = "allowed"
    print(json.dumps(found))  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
