"""The protections of the isolated process, each with its stable name, its meaning and what is lost without it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from siniantrust.errors import EnclaveError

ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class Protection:
    """One protection. ``name`` is what a policy's ``allow_missing`` writes."""

    name: str
    meaning: str
    without: str


PROTECTIONS: tuple[Protection, ...] = (
    Protection(
        "namespaces",
        "own mount (empty root), process, network, IPC, host-name and user namespaces",
        "the enclave could see the host's files, processes and network",
    ),
    Protection(
        "no_privileges",
        "no capabilities, and none to be gained",
        "a flaw inside the enclave would have its user's privileges",
    ),
    Protection(
        "landlock",
        "the kernel's Landlock denies every file and TCP port",
        "the enclave could open files",
    ),
    Protection(
        "seccomp",
        "only the few system calls that computing needs; no opening, connecting, forking or executing",
        "the enclave could start programs and open connections",
    ),
    Protection(
        "no_dump",
        "no core dumps, and no tracing by other processes of its user",
        "its memory could land in a core file or be read by its user's other programs",
    ),
    Protection(
        "one_core",
        "pinned to as many cores as it has threads",
        "its work would move between all cores, where others can time it",
    ),
    Protection(
        "memory_limit",
        "its memory cannot grow past the limit",
        "it could exhaust the host's memory",
    ),
    Protection(
        "secret_memory",
        "keys rest in memfd_secret pages, which not even the host's root reads through the kernel",
        "the host's root could read the keys",
    ),
)
_BY_NAME = {protection.name: protection for protection in PROTECTIONS}


def check_names(names: Iterable[str]) -> None:
    """Refuse names that are no protection's.

    Raises:
        EnclaveError: naming the first unknown name and all known ones.
    """
    for name in names:
        if name not in _BY_NAME:
            known = ", ".join(_BY_NAME)
            raise EnclaveError(f"[enclave] allow_missing: no protection is called '{name}'; there are: {known}")


def require(protections: Mapping[str, str], *, allow_missing: Iterable[str]) -> None:
    """Refuse an enclave that lacks a protection that nobody allowed to be missing.

    Raises:
        EnclaveError: naming each such protection, why it is missing, what that means and the policy line to write.
    """
    allowed = set(allow_missing)
    lacking = [entry for entry in PROTECTIONS if protections.get(entry.name) != ACTIVE and entry.name not in allowed]
    if not lacking:
        return
    reasons = "; ".join(
        f"{entry.name} ({protections.get(entry.name, 'not reported').removeprefix('missing: ')}: {entry.without})"
        for entry in lacking
    )
    absent = sorted(name for name, state in protections.items() if state != ACTIVE)
    names = ", ".join(f'"{name}"' for name in sorted({*absent, *(entry.name for entry in lacking)}))
    raise EnclaveError(
        f"process enclave refused, protections are missing on this host: {reasons}; "
        f"to do without, write in the policy: [enclave] allow_missing = [{names}]"
    )
