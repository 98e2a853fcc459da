"""The first file that the enclave process runs, as a script: own namespaces, a fork, and then the enclave's program.

It keeps the packages' ``__init__`` modules out of the enclave: their place is taken by empty packages, so that exactly
the files that are measured are the files that run.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType, ModuleType

_EMPTY_PACKAGES = (
    "siniantrust",
    "siniantrust.masking",
    "siniantrust.masking.exact",
    "siniantrust.trust",
    "siniantrust.trust.process",
)
_STATUS = 1


def _lay_out_packages(source: Path) -> None:
    for name in _EMPTY_PACKAGES:
        package = ModuleType(name)
        package.__path__ = [str(source.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package


def _supervise(enclave: int) -> None:
    """Wait for the enclave as its parent, and end in the way in which it ended; end it on SIGTERM."""

    def end(_number: int, _frame: FrameType | None) -> None:
        os.kill(enclave, signal.SIGKILL)

    signal.signal(signal.SIGTERM, end)
    os.write(_STATUS, f"{enclave}\n".encode())
    os.closerange(_STATUS, os.sysconf("SC_OPEN_MAX"))
    _, status = os.waitpid(enclave, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


def main() -> None:
    """Run as ``python -I _boot.py CONFIGURATION``."""
    configuration = json.loads(sys.argv[1])
    _lay_out_packages(Path(__file__).resolve().parents[2])
    from siniantrust.trust.process import _limits, _namespaces

    try:
        _namespaces.isolate()
        namespaces = "active"
    except OSError as fault:
        namespaces = f"missing: {fault.strerror}"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    enclave = os.fork()
    if enclave:
        _supervise(enclave)
    _limits.die_with_parent()
    sys.path[:] = configuration["path"]
    from siniantrust.trust.process import _program

    _program.main(configuration, namespaces)


if __name__ == "__main__":
    main()
