"""seccomp: the system calls that computing and answering on one socket need, and no others (through libseccomp)."""

from __future__ import annotations

import errno
from types import ModuleType

_PLAIN = (
    # the socket, which is open already
    "recvfrom",
    "sendto",
    "close",
    # memory; mmap and mprotect are allowed below, unless they ask for executable pages
    "munmap",
    "mremap",
    "madvise",
    "brk",
    # threads, signals and waiting
    "futex",
    "rseq",
    "set_robust_list",
    "restart_syscall",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "sched_yield",
    "sched_getaffinity",
    "gettid",
    "getpid",
    "exit",
    "exit_group",
    # clocks and randomness
    "clock_gettime",
    "clock_getres",
    "clock_nanosleep",
    "gettimeofday",
    "getrandom",
)
_MAPPING = ("mmap", "mprotect")
_PROT_EXEC = 4
_CLONE_THREAD = 0x00010000


def load_library() -> ModuleType:
    """Import pyseccomp.

    Raises:
        OSError: if it or libseccomp is not installed.
    """
    try:
        import pyseccomp
    except ModuleNotFoundError:
        raise OSError(errno.ENOSYS, "pyseccomp is not installed (pip install 'siniantrust[enclave]')") from None
    except RuntimeError:
        raise OSError(errno.ENOSYS, "the library libseccomp is not installed (Debian: libseccomp2)") from None
    module: ModuleType = pyseccomp
    return module


def allow_only_computing(library: ModuleType, *, threads: int) -> None:
    """Load the filter: what is not allowed fails with EPERM. With ``threads`` above 1, threads may be made.

    Raises:
        OSError: if the kernel refuses the filter.
    """
    rules = library.SyscallFilter(library.ERRNO(errno.EPERM))
    for name in _PLAIN:
        rules.add_rule(library.ALLOW, name)
    for name in _MAPPING:
        rules.add_rule(library.ALLOW, name, library.Arg(2, library.MASKED_EQ, _PROT_EXEC, 0))
    if threads > 1:
        same_process = library.Arg(0, library.MASKED_EQ, _CLONE_THREAD, _CLONE_THREAD)
        rules.add_rule(library.ALLOW, "clone", same_process)
        # clone3 hides its flags behind a pointer; told that it does not exist, the C library uses clone.
        rules.add_rule(library.ERRNO(errno.ENOSYS), "clone3")
    rules.load()
