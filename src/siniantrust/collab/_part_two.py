"""Training Part 2 on stored features, by one process or by several (DDP over gloo) under ``torchrun`` or Ray Train.

A job is a file that names everything, so that processes that others start need nothing else:
``torchrun --nproc-per-node 4 -m siniantrust.collab._part_two JOB`` trains as `sinian train cloud` does with 4 workers.
"""

from __future__ import annotations

import fcntl
import io
import math
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from siniantrust._files import write_atomic
from siniantrust.collab._agreement import Agreement, agreement_of
from siniantrust.collab._checked_file import read_checked, write_checked
from siniantrust.collab._checkpoints import Checkpoints
from siniantrust.collab._config import CloudConfig, MaskSection, TrainingSection
from siniantrust.collab._errors import CollabError
from siniantrust.collab._features import FeatureStore
from siniantrust.collab._launch import launched, lost
from siniantrust.collab._middle import Arrays, to_arrays, to_tensors
from siniantrust.collab._task import load_task
from siniantrust.collab._trained_part import TrainedPart, seed_of, shared_weights

_MODULE = "siniantrust.collab._part_two"
_OUTCOME = "outcome"


class Job(BaseModel):
    """What to train, from which features, and where to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    agreement: str
    training: TrainingSection
    mask: MaskSection | None
    edges: tuple[str, ...]
    threads: int
    max_items: int

    @classmethod
    def of(cls, config: CloudConfig, agreement: Agreement, *, edges: Sequence[str]) -> Job:
        """Return the job that a cloud's configuration and its edges make."""
        return cls(
            folder=config.folder.absolute(),
            agreement=agreement.sha256,
            training=config.training.model_copy(update={"model": config.training.model.absolute()}),
            mask=config.mask and config.mask.model_copy(update={"calibration": config.mask.calibration.absolute()}),
            edges=tuple(edges),
            threads=config.threads,
            max_items=config.limits.items,
        )


def run_job(job: Job, *, workers: int, ray: str | None) -> None:
    """Train here, in ``workers`` processes, or in as many on the Ray cluster at the address ``ray``.

    Raises:
        CollabError: if it fails.
    """
    if workers == 1 and ray is None:
        train(job)
        return
    path = job.folder / "job.json"
    write_atomic(path, job.model_dump_json().encode())
    with launched(_MODULE, path, workers=workers, threads=job.threads, ray=ray) as running:
        if running.wait():
            raise lost(path)


def read_outcome(job: Job) -> tuple[Arrays, list[dict[str, float]]]:
    """Return the trained weights of Part 2 by their names in the ONNX model, and loss and accuracy by epoch."""
    found = torch.load(io.BytesIO(read_checked(job.folder / _OUTCOME)), weights_only=True)
    return to_arrays(found["weights"]), found["curve"]


def train(job: Job) -> None:
    """Train on this process's share of every batch; the first process writes checkpoints and the outcome.

    Raises:
        CollabError: if the features are of another run, or too few for one batch.
    """
    torch.set_num_threads(job.threads)
    rank, world = _place()
    with (job.folder / "train.lock").open("wb") if rank == 0 else nullcontext() as lock:
        if lock is not None:
            # Processes of a cloud that was killed may still be at it; what they write is what would be written here.
            fcntl.flock(lock, fcntl.LOCK_EX)
        _train(job, rank, world)


def _place() -> tuple[int, int]:
    """Return which process this is, and of how many."""
    distributed = torch.distributed
    return (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)


def _train(job: Job, rank: int, world: int) -> None:
    task = load_task(job.training, job.mask)
    if agreement_of(job.training, task).sha256 != job.agreement:
        raise CollabError("the model or its mask has changed since the run began")
    store = FeatureStore(job.folder / "features", job.agreement, task, max_items=job.max_items)
    features, labels = (torch.from_numpy(array) for array in store.read(job.edges))
    part = TrainedPart(task.parts[1], job.training, frozen=shared_weights(task.parts))
    checkpoints = Checkpoints(job.folder / "checkpoints", job.agreement)
    curve: list[dict[str, float]] = []
    done = 0
    if steps := checkpoints.steps():
        state = checkpoints.load(steps[-1])
        part.restore(state["part"])
        curve, done = state["curve"], steps[-1]
    module: Any = torch.nn.parallel.DistributedDataParallel(part.module) if world > 1 else part.module
    for epoch in range(done + 1, job.training.steps + 1):
        curve.append(_epoch(job.training, part, module, features, labels, epoch, rank, world))
        if rank == 0 and (epoch % job.training.checkpoint_every == 0 or epoch == job.training.steps):
            checkpoints.save(epoch, {"part": part.state(), "curve": curve})
    if rank == 0:
        buffer = io.BytesIO()
        torch.save({"weights": to_tensors(part.weights()), "curve": curve}, buffer)
        write_checked(job.folder / _OUTCOME, buffer.getvalue())


def _epoch(
    training: TrainingSection,
    part: TrainedPart,
    module: Any,
    features: torch.Tensor,
    labels: torch.Tensor,
    epoch: int,
    rank: int,
    world: int,
) -> dict[str, float]:
    """Go once over all features; with several processes each takes its rows of every batch."""
    batch = min(training.batch, len(labels)) // world * world
    if not batch:
        raise CollabError(f"{len(labels)} items are too few for {world} workers")
    order = np.random.default_rng(seed_of(training.seed, epoch)).permutation(len(labels))
    batches = order[: len(labels) // batch * batch].reshape(-1, world, batch // world)
    sums = torch.zeros(2, dtype=torch.float64)
    for number, rows in enumerate(batches[:, rank]):
        torch.manual_seed(seed_of(training.seed, epoch, number, rank))
        mine = torch.from_numpy(rows)
        (scores,) = module(features[mine])
        loss = torch.nn.functional.cross_entropy(scores, labels[mine])
        loss.backward()  # type: ignore[no-untyped-call]
        part.update((epoch - 1) * len(batches) + number + 1, training.steps * len(batches))
        sums += torch.stack([loss.detach(), (scores.detach().argmax(1) == labels[mine]).float().mean()])
    if world > 1:
        torch.distributed.all_reduce(sums)
    loss_mean, accuracy = (sums / (len(batches) * world)).tolist()
    if not math.isfinite(loss_mean):
        raise CollabError(f"epoch {epoch}: the loss is not finite; start anew with a smaller learning_rate")
    return {"epoch": epoch, "loss": loss_mean, "accuracy": accuracy}


def _main() -> None:
    torch.distributed.init_process_group("gloo")
    try:
        train(Job.model_validate_json(Path(sys.argv[1]).read_text()))
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    _main()
