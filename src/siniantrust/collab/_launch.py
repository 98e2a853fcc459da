"""Processes that train Part 2 for the cloud: started by ``torchrun`` here, or by Ray Train on a Ray cluster."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from siniantrust.collab._errors import CollabError

_LOG = "workers.log"
_END_S = 10.0
# Before what an error of ours says, in a traceback.
_RAISED = f"{CollabError.__module__}.{CollabError.__name__}: "
_KILLED = re.compile(r"Signal \d+ \(SIG\w+\) received by PID \d+")


@contextmanager
def launched(
    module: str, job: Path, *, workers: int, threads: int, ray: str | None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``module`` on a job in ``workers`` processes; those that still run at the end are ended.

    Args:
        module: what torchrun starts, and `_ray_train` knows.
        job: the job's file; what the processes say goes into ``workers.log`` beside it.
        workers: how many processes.
        threads: of each.
        ray: HOST:PORT of a Ray cluster's head; None for this machine.
    """
    if ray is None:
        command = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(workers), "-m", module, str(job)]
    else:
        command = ["siniantrust.collab._ray_train", module, str(job), ray, str(workers)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with (job.parent / _LOG).open("wb") as log:
        running = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=subprocess.DEVNULL, stderr=log, env=environment
        )
    try:
        yield running
    finally:
        # torchrun and Ray end what they have started.
        running.terminate()
        try:
            running.wait(_END_S)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def lost(job: Path, *, seen: str = "") -> CollabError:
    """Return the error for workers that have failed: what they or torchrun said of it, or else what was ``seen``."""
    log = job.parent / _LOG
    said = log.read_text(errors="replace").strip()
    lines = said.splitlines()
    ours = [line.partition(_RAISED)[2] for line in lines if _RAISED in line]
    why = next(filter(None, [*ours, *_KILLED.findall(said)[-1:], seen, *lines[-1:]]), "nothing was said")
    return CollabError(f"training of Part 2 failed in its workers: {why} (the whole is in {log})")
