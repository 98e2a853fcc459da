"""A program that enters the enclave's sandbox and then tries what it must not be able to do.

Run as ``python sandbox_prober.py SOCKET THREADS``; it answers with one JSON object on the socket: what each attempt
came to. It stands here, so that the product needs no way to make an enclave run foreign code.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from siniantrust.trust.process import _namespaces, _sandbox


def _map_executable() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def _trace_parent() -> None:
    if ctypes.CDLL(None, use_errno=True).ptrace(16, os.getppid(), None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def _start_thread() -> None:
    thread = threading.Thread(target=list)
    thread.start()
    thread.join()


def _write_file() -> None:
    os.close(os.open("/tmp/prober", os.O_CREAT | os.O_WRONLY))  # noqa: S108 - it must not come to be


_ATTEMPTS: dict[str, Callable[[], object]] = {
    "open a file": lambda: os.close(os.open("/etc/passwd", os.O_RDONLY)),
    "write a file": _write_file,
    "list the root": lambda: list(Path("/").iterdir()),
    "read kernel memory of process 1": lambda: os.close(os.open("/proc/1/mem", os.O_RDONLY)),
    "open a TCP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close(),
    "open a UNIX socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).close(),
    "fork": os.fork,
    "execute": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606 - it must fail
    "signal the parent": lambda: os.kill(os.getppid(), 0),
    "trace the parent": _trace_parent,
    "map executable memory": _map_executable,
    "duplicate a file": lambda: os.close(os.dup(0)),
    "make shared memory": lambda: os.close(os.memfd_create("prober")),
    "leave its core": lambda: os.sched_setaffinity(0, range(os.cpu_count() or 1)),
    "start a thread": _start_thread,
}


def _attempt(function: Callable[[], object]) -> str:
    try:
        function()
    except (OSError, RuntimeError) as fault:
        return f"refused: {fault}"
    return "allowed"


def main() -> None:
    """Enter the sandbox as the enclave does, and try."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    threads = int(sys.argv[2])
    cores = tuple(sorted(os.sched_getaffinity(0))[:threads])
    states = {"namespaces": _sandbox.attempt(_namespaces.isolate)}
    if child := os.fork():
        os.waitpid(child, 0)
        return
    confinement = _sandbox.Confinement(
        own_namespaces=states["namespaces"] == "active", cores=cores, threads=threads, data_bytes=None
    )
    states.update(_sandbox.enter(confinement))
    results = {name: _attempt(function) for name, function in _ATTEMPTS.items()}
    connection.send(json.dumps({"states": states, "attempts": results}).encode())
    os._exit(0)


if __name__ == "__main__":
    main()
