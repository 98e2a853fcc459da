"""A control group that limits the enclave's memory: version 2, or version 1 of the memory controller."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PREFIX = "siniantrust-"


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """A control group of one enclave."""

    path: Path
    version: int

    def open_procs(self) -> int:
        """Return a file that a process writes ``0`` to, to join."""
        return os.open(self.path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)

    def was_exceeded(self) -> bool:
        """Return whether the kernel killed a member because of the limit."""
        file = "memory.events" if self.version == 2 else "memory.oom_control"  # noqa: PLR2004 - the version's name
        with contextlib.suppress(OSError, ValueError):
            for line in (self.path / file).read_text(encoding="ascii").splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count) > 0
        return False

    def remove(self) -> None:
        """Remove the group; its members have ended."""
        with contextlib.suppress(OSError):
            self.path.rmdir()


def create(limit_bytes: int) -> MemoryGroup | None:
    """Make a group with a memory limit and no swap, or return None where this user may not."""
    for parent, version in _parents():
        _sweep(parent)
        path = parent / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        try:
            path.mkdir()
        except OSError:
            continue
        group = MemoryGroup(path, version)
        try:
            _limit(group, limit_bytes)
            os.close(group.open_procs())
        except OSError:
            group.remove()
            continue
        return group
    return None


def _limit(group: MemoryGroup, limit_bytes: int) -> None:
    names = {1: ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"), 2: ("memory.max", "memory.swap.max")}
    limit, swap = (group.path / name for name in names[group.version])
    limit.write_text(str(limit_bytes), encoding="ascii")
    with contextlib.suppress(FileNotFoundError, PermissionError):  # a kernel without swap accounting has no such file
        swap.write_text(str(limit_bytes if group.version == 1 else 0), encoding="ascii")


def _parents() -> Iterator[tuple[Path, int]]:
    """Yield groups under which one might be made: this process's own, and (version 2) the one above it.

    Version 2 forbids limits below a group that has processes itself, so that a sibling is the usual place.
    """
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        relative = path.lstrip("/")
        if "memory" in controllers.split(","):
            yield _ROOT / "memory" / relative, 1
            yield _ROOT / "memory", 1  # in a container, the path is the host's
        elif not controllers:
            own = _ROOT / relative
            for parent in (own, own.parent) if relative else (own,):
                with contextlib.suppress(OSError):
                    if "memory" in (parent / "cgroup.subtree_control").read_text(encoding="ascii").split():
                        yield parent, 2


def _sweep(parent: Path) -> None:
    """Remove what launchers that were killed left behind; a group with members cannot be removed."""
    with contextlib.suppress(OSError):
        for left in parent.glob(f"{_PREFIX}*-*"):
            owner = left.name.removeprefix(_PREFIX).partition("-")[0]
            if owner.isdigit() and not Path("/proc", owner).exists():
                with contextlib.suppress(OSError):
                    left.rmdir()
