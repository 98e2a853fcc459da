from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import sandbox_prober

from siniantrust.trust.process import _landlock, _seccomp

Findings = dict[str, dict[str, str]]

# numpy's threads would forbid the process a user namespace.
_ONE_THREAD = os.environ | {"OPENBLAS_NUM_THREADS": "1"}


def _probe(threads: int) -> Findings:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    prober = Path(__file__).with_name("sandbox_prober.py")
    with ours, theirs:
        subprocess.run(
            [sys.executable, str(prober), str(theirs.fileno()), str(threads)],
            pass_fds=(theirs.fileno(),),
            check=True,
            timeout=60,
            env=_ONE_THREAD,
        )
        ours.setblocking(False)
        findings: Findings = json.loads(ours.recv(1 << 16))
    return findings


def _skip_without_seccomp() -> None:
    try:
        _seccomp.load_library()
    except OSError as fault:
        pytest.skip(f"no seccomp here: {fault}")


@pytest.fixture(scope="module")
def findings() -> Findings:
    """Return what a process in the sandbox of one thread found."""
    return _probe(1)


@pytest.mark.parametrize(
    "attempt",
    [
        "open a file",
        "write a file",
        "list the root",
        "read kernel memory of process 1",
        "open a TCP socket",
        "open a UNIX socket",
        "fork",
        "execute",
        "signal the parent",
        "trace the parent",
        "map executable memory",
        "duplicate a file",
        "make shared memory",
        "leave its core",
        "start a thread",
    ],
)
def test_the_sandbox_refuses(findings: Findings, attempt: str) -> None:
    """A process that has entered the sandbox cannot do what computing does not need."""
    _skip_without_seccomp()
    assert findings["states"]["seccomp"] == "active"
    assert findings["attempts"][attempt].startswith("refused: ")


def test_the_prober_finds_nothing_refused_outside_the_sandbox() -> None:
    """The attempts do work outside: a refusal in the sandbox is the sandbox's doing."""
    harmless = ("open a file", "list the root", "open a UNIX socket", "map executable memory", "make shared memory")
    for name in (*harmless, "duplicate a file", "start a thread"):
        assert sandbox_prober._attempt(sandbox_prober._ATTEMPTS[name]) == "allowed"


def test_with_two_threads_it_may_start_threads_but_not_processes() -> None:
    """Allowing threads does not allow a fork."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("this machine has one core")
    _skip_without_seccomp()
    found = _probe(2)
    assert found["states"]["seccomp"] == "active"
    assert found["attempts"]["start a thread"] == "allowed"
    assert found["attempts"]["fork"].startswith("refused")
    assert found["attempts"]["execute"].startswith("refused")


_WITHOUT_SECCOMP = """
import json, os, sys
from siniantrust.trust.process import {module}
{step}
try:
    os.listdir("/etc")
    print("allowed")
except OSError as fault:
    print("refused", fault.errno)
"""


def _alone(module: str, step: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_SECCOMP.format(module=module, step=step)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=_ONE_THREAD,
    )
    return done.stdout.strip()


def test_landlock_alone_denies_files() -> None:
    """Without seccomp, Landlock still denies files: each protection holds by itself."""
    try:
        _landlock.abi_version()
    except OSError as fault:
        pytest.skip(f"no Landlock here: {fault}")
    step = "from siniantrust.trust.process import _limits; _limits.drop_privileges(); _landlock.deny_all()"
    assert _alone("_landlock", step).startswith("refused 13")


def test_the_empty_root_alone_hides_files(findings: Findings) -> None:
    """Without seccomp and Landlock, the host's folders are not there."""
    if findings["states"]["namespaces"] != "active":
        pytest.skip(f"no namespaces here: {findings['states']['namespaces']}")
    step = "_namespaces.isolate(); _namespaces.forsake_host(is_root=os.geteuid() == 0)"
    assert _alone("_namespaces", step).startswith("refused 2")


def test_dropping_privileges_leaves_no_capability() -> None:
    """After dropping, the kernel lists no capability in any set, and none can be gained."""
    code = (
        "from siniantrust.trust.process import _limits; _limits.drop_privileges()\n"
        "print(open('/proc/self/status').read())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    status = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert status["NoNewPrivs"].strip() == "1"
