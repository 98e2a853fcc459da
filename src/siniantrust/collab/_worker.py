"""A worker of split learning: a process that takes its share of Part 2's passes, as the cloud's process says.

``torchrun --nproc-per-node 3 -m siniantrust.collab._worker JOB`` starts three for a cloud with 4 that awaits them.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import distributed

from siniantrust.collab._agreement import agreement_of
from siniantrust.collab._config import TrainingSection
from siniantrust.collab._errors import CollabError
from siniantrust.collab._learner import Learner
from siniantrust.collab._task import Task, load_task
from siniantrust.collab._trained_part import TrainedPart, shared_weights

LEADER = 0
# No process waits for longer for another one.
_SILENCE = timedelta(seconds=300)


class Order(IntEnum):
    """What all are to do next."""

    REST = 0
    RESTORE = 1
    FORWARD = 2
    BACKWARD = 3
    END = 4


class Job(BaseModel):
    """What a worker needs to know: what is trained, and where the cloud awaits it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    agreement: str
    training: TrainingSection
    threads: int
    processes: int
    host: str
    port: int


def follow(path: Path, rank: int) -> None:
    """Do as the cloud says, as the process ``rank`` of its group, until it lets this one go.

    Raises:
        CollabError: if the model is not what it was for the cloud.
    """
    job = Job.model_validate_json(path.read_text())
    torch.set_num_threads(job.threads)
    task = load_task(job.training, None)
    if agreement_of(job.training, task).sha256 != job.agreement:
        raise CollabError("the model has changed since the run began")
    part = TrainedPart(task.parts[1], job.training, frozen=shared_weights(task.parts))
    store = distributed.TCPStore(job.host, job.port, job.processes, is_master=False)  # type: ignore[attr-defined]
    store.set(ready(rank), "")
    with group(store, rank, job):
        distribute(part, task)
        learner = Learner(part)
        answers = torch.empty(0)
        while True:
            told = torch.empty(4, dtype=torch.int64)
            distributed.broadcast(told, LEADER)
            order, size, step, steps = told.tolist()
            if order == Order.RESTORE:
                data = torch.empty(size, dtype=torch.uint8)
                distributed.broadcast(data, LEADER)
                learner.restore(torch.load(io.BytesIO(data.numpy().tobytes()), weights_only=True))
            elif order == Order.FORWARD:
                features = torch.empty(size, *task.features.shape[1:])
                distributed.scatter(features, src=LEADER)
                answers = learner.forward(features, step).contiguous()
                distributed.gather(answers, dst=LEADER)
            elif order == Order.BACKWARD:
                gradient = torch.empty_like(answers)
                distributed.scatter(gradient, src=LEADER)
                distributed.gather(learner.backward(gradient, step, steps).contiguous(), dst=LEADER)
            elif order == Order.END:
                return


def distribute(part: TrainedPart, task: Task) -> None:
    """Train ``part`` in the group from now on.

    DDP puts the gradients in the order of the first pass, and sums of three processes and more come out a little
    different in another order. So a pass that teaches nothing comes before any that counts: a run that went on from
    a checkpoint then sums as one that was never interrupted.
    """
    before = part.state()
    part.distribute()
    answers = part.forward(torch.zeros(1, *task.features.shape[1:]), 0)
    answers.backward(torch.zeros_like(answers))  # type: ignore[no-untyped-call]
    part.restore(before)


@contextmanager
def group(store: Any, rank: int, job: Job) -> Iterator[None]:
    """Be one of the processes of torch's group while the block lasts."""
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=job.processes, timeout=_SILENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def ready(rank: int) -> str:
    """Return the key under which a worker says that it can begin."""
    return f"ready {rank}"


if __name__ == "__main__":
    follow(Path(sys.argv[1]), int(os.environ["RANK"]) + 1)
