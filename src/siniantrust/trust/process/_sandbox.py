"""Entering the sandbox: every protection is put up in the order that lets the next one still be put up."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from siniantrust.trust._protections import ACTIVE
from siniantrust.trust.process import _landlock, _limits, _namespaces, _seccomp


@dataclass(frozen=True, slots=True)
class Confinement:
    """How to confine this process.

    Attributes:
        own_namespaces: whether ``_namespaces.isolate`` succeeded before the fork; if so, files and user go too.
        cores: the cores to stay on.
        threads: threads that it may have.
        data_bytes: private memory that it may have, or None where a cgroup limits it.
    """

    own_namespaces: bool
    cores: tuple[int, ...]
    threads: int
    data_bytes: int | None


def attempt(step: Callable[[], object]) -> str:
    """Take one step; return ``active``, or ``missing: `` and the reason."""
    try:
        step()
    except OSError as fault:
        return f"missing: {fault.strerror or fault}"
    return ACTIVE


def enter(confinement: Confinement) -> dict[str, str]:
    """Put up all protections that this process can put up itself; return the state of each.

    There is no way back. Everything that needs files, libraries, sockets or new mappings of code comes before.
    """
    states: dict[str, str] = {}
    library: ModuleType | None = None
    try:
        library = _seccomp.load_library()
    except OSError as fault:
        states["seccomp"] = f"missing: {fault.strerror}"
    if confinement.own_namespaces:
        states["namespaces"] = attempt(lambda: _namespaces.forsake_host(is_root=os.geteuid() == 0))
    states["one_core"] = attempt(lambda: _limits.pin(confinement.cores))
    if confinement.data_bytes is not None:
        data_bytes = confinement.data_bytes
        states["memory_limit"] = attempt(lambda: _limits.limit_data(data_bytes))
    _limits.limit_counts(threads=confinement.threads)
    states["no_privileges"] = attempt(_limits.drop_privileges)
    states["no_dump"] = attempt(_limits.forbid_dumps)
    _limits.die_with_parent()
    states["landlock"] = attempt(_landlock.deny_all)
    if library is not None:
        filters = library
        states["seccomp"] = attempt(lambda: _seccomp.allow_only_computing(filters, threads=confinement.threads))
    return states
