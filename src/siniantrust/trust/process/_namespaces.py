"""Own namespaces for the enclave process, for root and for ordinary users alike.

An ordinary user may unshare everything together with a new user namespace, in which it holds all capabilities. Root
unshares the rest first and takes its user namespace last, because it would otherwise lose the right to read other
users' files before the program is imported.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_CLONE_NEWCGROUP = 0x02000000
_CLONE_NEWUTS = 0x04000000
_CLONE_NEWIPC = 0x08000000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWPID = 0x20000000
_CLONE_NEWNET = 0x40000000
_ALL_BUT_USER = _CLONE_NEWNS | _CLONE_NEWCGROUP | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWPID | _CLONE_NEWNET

_MS_RDONLY = 1
_MS_NOSUID = 2
_MS_NODEV = 4
_MS_NOEXEC = 8
_MS_REC = 1 << 14
_MS_PRIVATE = 1 << 18


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _unshare(flags: int) -> None:
    if _libc().unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")


def _map_own_user(user: int, group: int) -> None:
    """Map only this user into its new namespace (user_namespaces(7))."""
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")


def isolate() -> None:
    """Enter new mount, process, network, IPC, host-name and cgroup namespaces; the next fork is process 1 of its own.

    Raises:
        OSError: if the kernel refuses them.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        _unshare(_ALL_BUT_USER)
    except PermissionError:
        _unshare(_ALL_BUT_USER | _CLONE_NEWUSER)
        _map_own_user(user, group)


def forsake_host(*, is_root: bool) -> None:
    """Make an empty read-only folder the root; what was root is nobody from here on, in a user namespace of its own.

    Raises:
        OSError: if the kernel refuses it, or the process has several threads.
    """
    _mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    _mount(b"none", b"/proc", b"tmpfs", _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, b"size=4k,mode=0555")
    if is_root:
        _unshare(_CLONE_NEWUSER)  # before chroot, after which the kernel refuses it
    os.chroot("/proc")
    os.chdir("/")


def _mount(source: bytes | None, target: bytes, kind: bytes | None, flags: int, options: bytes | None) -> None:
    if _libc().mount(source, target, kind, ctypes.c_ulong(flags), options) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount: {os.strerror(number)}")
