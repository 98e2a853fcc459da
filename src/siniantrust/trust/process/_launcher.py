"""Starting the enclave process and ending it: windows, control group, environment, and what is left when it dies."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import mmap
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from siniantrust.errors import EnclaveError
from siniantrust.trust._types import EnclaveSpec
from siniantrust.trust.process import _cgroup

_GRACE_S = 2.0
_PASSED_ON = ("LD_LIBRARY_PATH",)
_next_core = itertools.count()


@dataclass
class Started:
    """A started enclave process. ``pid`` is the enclave's own; ``supervisor`` is its parent, which reaps it."""

    supervisor: subprocess.Popen[bytes]
    connection: socket.socket
    outgoing: mmap.mmap
    incoming: mmap.mmap
    group: _cgroup.MemoryGroup | None
    errors: IO[bytes]
    pid: int = 0

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"process enclave (pid {self.pid})"

    def read_line(self) -> str:
        """Return the first line that the supervisor writes: the enclave's process id."""
        return self.supervisor.stdout.readline().decode().strip() if self.supervisor.stdout is not None else ""

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the end; return the exit code (negative: the signal), or None after ``timeout_s``."""
        try:
            return self.supervisor.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> int:
        """End it for certain and reap it; return the exit code, negative for a signal."""
        with contextlib.suppress(OSError):
            self.connection.close()
        code = self.supervisor.poll()
        if code is None:
            self.supervisor.terminate()
            code = self.wait(_GRACE_S)
        if code is None:
            self.supervisor.kill()
            code = self.supervisor.wait()
        if self.supervisor.stdout is not None:
            self.supervisor.stdout.close()
        return code

    def was_over_memory(self) -> bool:
        """Return whether the kernel ended it for its memory."""
        return self.group is not None and self.group.was_exceeded()

    def last_words(self) -> str:
        """Return the last line that it wrote on standard error before it entered the sandbox."""
        with contextlib.suppress(OSError, ValueError):
            self.errors.seek(0)
            lines = self.errors.read(1 << 16).decode(errors="replace").strip().splitlines()
            return lines[-1] if lines else ""
        return ""

    def clean_up(self) -> None:
        """Give back what belonged to it; only after ``end``."""
        if self.group is not None:
            self.group.remove()
        self.errors.close()


def start(spec: EnclaveSpec) -> Started:
    """Start the process and connect it; it has not proved anything yet.

    Raises:
        EnclaveError: if it does not start.
    """
    if sys.platform != "linux":
        raise EnclaveError(f"process enclave: expected Linux, found {sys.platform}; use another provider")
    window_bytes = _window_bytes(spec.memory_bytes)
    cores = _choose_cores(spec.threads)
    with contextlib.ExitStack() as passed_on, contextlib.ExitStack() as on_failure:
        group = _cgroup.create(spec.memory_bytes)
        if group is not None:
            on_failure.callback(group.remove)
        errors = on_failure.enter_context(tempfile.TemporaryFile())
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        on_failure.enter_context(ours)
        passed_on.enter_context(theirs)
        files = {"connection": theirs.fileno()}
        for name in ("incoming", "outgoing"):
            files[name] = _make_window(name, window_bytes)
            passed_on.callback(os.close, files[name])
        if group is not None:
            files["cgroup"] = group.open_procs()
            passed_on.callback(os.close, files["cgroup"])
        configuration = {
            "path": [entry for entry in sys.path if entry],
            "files": files,
            "window_bytes": window_bytes,
            "memory_bytes": spec.memory_bytes,
            "data_bytes": None if group is not None else spec.memory_bytes,
            "threads": spec.threads,
            "cores": cores,
        }
        started = Started(
            supervisor=_spawn(configuration, tuple(files.values()), errors, threads=spec.threads),
            connection=ours,
            outgoing=mmap.mmap(files["incoming"], window_bytes),
            incoming=mmap.mmap(files["outgoing"], window_bytes),
            group=group,
            errors=errors,
        )
        on_failure.callback(started.end)
        passed_on.close()  # or the enclave's end of the socket would stay open after it died
        line = started.read_line()
        if not line.isdigit():
            started.end()
            raise EnclaveError(f"process enclave: it did not start ({started.last_words() or 'it said nothing'})")
        started.pid = int(line)
        on_failure.pop_all()
    return started


def _spawn(
    configuration: Mapping[str, object], files: tuple[int, ...], errors: IO[bytes], *, threads: int
) -> subprocess.Popen[bytes]:
    boot = Path(__file__).with_name("_boot.py")
    try:
        return subprocess.Popen(
            [sys.executable, "-I", str(boot), json.dumps(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            pass_fds=files,
            env=_environment(threads),
            cwd="/",
        )
    except OSError as fault:
        raise EnclaveError(f"process enclave: {sys.executable} does not start ({fault.strerror})") from None


def _window_bytes(memory_bytes: int) -> int:
    """A window has two slots of the enclave's whole memory: it is sparse, and what is not used costs nothing."""
    return 2 * -(-memory_bytes // mmap.PAGESIZE) * mmap.PAGESIZE


def _make_window(name: str, size_bytes: int) -> int:
    """Return a memory file whose size nobody can change any more, so that neither side can be made to fault."""
    file = os.memfd_create(f"siniantrust-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(file, size_bytes)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return file


def _choose_cores(threads: int) -> list[int]:
    """Take turns, so that two enclaves do not share a core while another is free; from the last one down."""
    available = sorted(os.sched_getaffinity(0), reverse=True)
    if threads > len(available):
        raise EnclaveError(f"process enclave: asked for {threads} threads, this process may use {len(available)} cores")
    first = next(_next_core) * threads
    return sorted(available[(first + index) % len(available)] for index in range(threads))


def _environment(threads: int) -> dict[str, str]:
    """What the child gets to see: nothing that the parent's environment might hold secret."""
    fixed = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",
        # From 1.29 on, ONNX Runtime uploads usage data by default, from threads of its own.
        "ORT_DISABLE_TELEMETRY": "1",
    }
    return fixed | {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
