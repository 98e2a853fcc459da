"""What the process enclave stops from outside: the rows of the table in docs/threat-model.md, each tried."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import memory_reader
import pytest
from trust_parts import Launch

import siniantrust
from siniantrust.trust import Enclave

READER = Path(memory_reader.__file__)
NOBODY = "65534"
WAYS = tuple(memory_reader.ATTEMPTS)
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(siniantrust.__file__).parents[1])}
BYSTANDER = """
import time
from siniantrust.trust.process import _limits
_limits.drop_privileges()
print("ready", flush=True)
time.sleep(60)
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can try as root and as other users")


def _pages(pid: int, wanted: str) -> int:
    """Return where the first readable mapping of ``pid`` lies whose line in its maps contains ``wanted``."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        place, access = line.split()[:2]
        if wanted in line and access.startswith("r"):
            return int(place.split("-")[0], 16)
    raise LookupError(f"process {pid} maps no {wanted}")


def _read(pid: int, address: int, user: str) -> dict[str, str]:
    command = [sys.executable, str(READER), str(pid), f"{address:x}", user]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT, timeout=60)
    found: dict[str, str] = json.loads(ran.stdout)
    return found


def _pid(enclave: Enclave) -> int:
    pid = enclave.info().pid
    assert pid is not None
    return pid


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """Return an ordinary process of this user: it has no privileges either, and nothing was done to protect it."""
    process = subprocess.Popen([sys.executable, "-c", BYSTANDER], env=ENVIRONMENT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@needs_root
@pytest.mark.parametrize("user", ["same", NOBODY])
def test_other_programs_read_none_of_its_memory(launched: Launch, user: str) -> None:
    """Neither a program of another user nor one of its own user without privileges can trace or read the enclave."""
    pid = _pid(launched())
    found = _read(pid, _pages(pid, "[stack]"), user)
    assert set(found) == set(WAYS)
    for way in WAYS:
        assert found[way].startswith("refused: "), way


@needs_root
def test_the_same_attempts_succeed_on_an_ordinary_process(bystander: subprocess.Popen[bytes]) -> None:
    """A program of the same user does read a process that is not protected: the refusals are the enclave's doing."""
    found = _read(bystander.pid, _pages(bystander.pid, "[stack]"), "same")
    assert found == dict.fromkeys(WAYS, "allowed")


@needs_root
def test_root_reads_its_memory_but_not_its_keys(launched: Launch) -> None:
    """Root is not stopped, which is why the enclave is called simulated; only the pages with the keys stay closed."""
    enclave = launched()
    state = enclave.info().protections["secret_memory"]
    if not state.startswith("active"):
        pytest.skip(f"no memfd_secret here: {state}")
    pid = _pid(enclave)
    stack, keys = _read(pid, _pages(pid, "[stack]"), "0"), _read(pid, _pages(pid, "secretmem"), "0")
    assert stack == dict.fromkeys(WAYS, "allowed")
    assert keys["/proc/PID/mem"].startswith("refused: ")
    assert keys["process_vm_readv"].startswith("refused: ")


def test_it_leaves_no_core_dump(launched: Launch) -> None:
    """The kernel lists a core size of zero for the enclave, which it cannot raise: a crash writes no memory to disk."""
    pid = _pid(launched())
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    core = next(line for line in limits if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]


def test_it_stays_on_its_core(launched: Launch) -> None:
    """Every thread of the enclave may run on one core only."""
    pid = _pid(launched(threads=1))
    for task in Path(f"/proc/{pid}/task").iterdir():
        assert len(os.sched_getaffinity(int(task.name))) == 1
