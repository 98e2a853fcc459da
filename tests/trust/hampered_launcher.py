"""A program on a host that lacks things: it launches an enclave where the kernel refuses what newer ones offer.

Run as ``python hampered_launcher.py NAME...``, where the names go to ``allow_missing``. It forbids itself, and so
the enclave, Landlock, memfd_secret and new namespaces, and prints what came of the launch.
"""

from __future__ import annotations

import errno
import sys

import pyseccomp

from siniantrust.errors import EnclaveError
from siniantrust.trust import EnclaveSpec, Provenance, launch

_LANDLOCK_CREATE_RULESET = 444
_MEMFD_SECRET = 447


def main() -> None:
    """Forbid, launch, and print."""
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), _LANDLOCK_CREATE_RULESET)
    rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), _MEMFD_SECRET)
    rules.add_rule(pyseccomp.ERRNO(errno.EPERM), "unshare")
    rules.load()
    spec = EnclaveSpec(memory_bytes=256 << 20, accept=(Provenance.SIMULATED,), allow_missing=tuple(sys.argv[1:]))
    try:
        enclave = launch(spec)
    except EnclaveError as fault:
        sys.stdout.write(f"refused {fault}")
        return
    missing = sorted(name for name, state in enclave.info().protections.items() if state != "active")
    enclave.close()
    sys.stdout.write(f"launched without {' '.join(missing)}")


if __name__ == "__main__":
    main()
