"""What a process can do about itself through prctl, capabilities, resource limits and scheduling."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_MAX_CAPABILITIES = 64


def _prctl(option: int, argument: int = 0) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    result = int(libc.prctl(option, ctypes.c_ulong(argument), zero, zero, zero))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")
    return result


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the one that forked it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def drop_privileges() -> None:
    """Give up all capabilities and the right to gain any.

    Raises:
        OSError: if the kernel refuses.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    for capability in range(_MAX_CAPABILITIES):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except OSError:
            break  # past the last one that the kernel knows, or no right to drop any, so that none is held either
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    nothing = bytes(24)
    if libc.capset(header, nothing) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capset: {os.strerror(number)}")


def forbid_dumps() -> None:
    """Forbid core dumps, and tracing and inspection by other processes of the same user.

    Raises:
        OSError: if the kernel refuses.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)
    if _prctl(_PR_GET_DUMPABLE) != 0:
        raise OSError(0, "the process is still dumpable")


def pin(cores: Sequence[int]) -> None:
    """Run on ``cores`` only.

    Raises:
        OSError: if the kernel refuses, or gives other cores.
    """
    os.sched_setaffinity(0, cores)
    if os.sched_getaffinity(0) != set(cores):
        raise OSError(0, f"asked for cores {sorted(cores)}, got {sorted(os.sched_getaffinity(0))}")


def limit_counts(*, threads: int) -> None:
    """Allow no growing files, and with one thread no new processes or threads."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if threads == 1:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def limit_data(size_bytes: int) -> None:
    """Limit private writable memory (RLIMIT_DATA, which counts anonymous mappings since Linux 4.7).

    RLIMIT_AS would not do: it counts the mapped libraries and the shared windows, which are sparse.

    Raises:
        OSError: if the kernel refuses.
    """
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (size_bytes, size_bytes))
    except ValueError as fault:
        raise OSError(0, f"RLIMIT_DATA: {fault}") from None
