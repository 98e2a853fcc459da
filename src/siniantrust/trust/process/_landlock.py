"""Landlock: a rule set that handles everything and allows nothing (kernel documentation, userspace-api/landlock)."""

from __future__ import annotations

import ctypes
import os
import struct

# The numbers are the same on every architecture (asm-generic/unistd.h).
_NR_CREATE_RULESET = 444
_NR_RESTRICT_SELF = 446
_CREATE_RULESET_VERSION = 1

# Rights that each ABI version handles: on files, on TCP ports, and scopes (abstract sockets, signals).
_FILE_RIGHTS_BITS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NET_RIGHTS_BITS = 2
_SCOPE_BITS = 2
_ABI_WITH_NET = 4
_ABI_WITH_SCOPE = 6


def _syscall(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"landlock: {os.strerror(error)}")
    return result


def abi_version() -> int:
    """Return the kernel's Landlock ABI version.

    Raises:
        OSError: if the kernel has no Landlock, or it is switched off.
    """
    return _syscall(_NR_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_CREATE_RULESET_VERSION))


def deny_all() -> int:
    """Deny this process every file, and what else the kernel's ABI version can deny; return that version.

    It needs no_new_privs, or the capability SYS_ADMIN.

    Raises:
        OSError: if the kernel refuses.
    """
    abi = abi_version()
    files = (1 << _FILE_RIGHTS_BITS.get(abi, max(_FILE_RIGHTS_BITS.values()))) - 1
    attributes = struct.pack("Q", files)
    if abi >= _ABI_WITH_NET:
        attributes += struct.pack("Q", (1 << _NET_RIGHTS_BITS) - 1)
    if abi >= _ABI_WITH_SCOPE:
        attributes += struct.pack("Q", (1 << _SCOPE_BITS) - 1)
    ruleset = _syscall(_NR_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    try:
        _syscall(_NR_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)
    return abi
