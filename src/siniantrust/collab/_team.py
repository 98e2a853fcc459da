"""Part 2 of split learning trained by several processes: the cloud's, which is the first, and workers that it leads.

The cloud's process speaks with the edges. It scatters the rows of each pass over all processes and gathers what comes
out; DistributedDataParallel sums the gradients of the weights. The loss is taken from all rows in the one place, so
that shares need not be weighted and labels go nowhere. Workers know no key and no edge, only the model and a port.
"""

from __future__ import annotations

import io
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from siniantrust._files import write_atomic
from siniantrust.collab._agreement import Agreement
from siniantrust.collab._config import CloudConfig
from siniantrust.collab._errors import CollabError
from siniantrust.collab._launch import launched, lost
from siniantrust.collab._learner import Learner
from siniantrust.collab._task import Task
from siniantrust.collab._trained_part import TrainedPart
from siniantrust.collab._worker import LEADER, Job, Order, distribute, group, ready
from siniantrust.graph import Part

_MODULE = "siniantrust.collab._worker"
# Well below how long workers wait for an order.
_REST_S = 30.0
_END_S = 10.0
_POLL_S = 0.1
# What these make of an item depends on the other items of its share, or on which process draws.
_NOT_BY_SHARES = frozenset(
    ("BatchNormalization", "Dropout", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)


class Team(Learner):
    """Does the passes of Part 2 with workers, each with its share of the rows. For one thread at a time.

    Args:
        part: Part 2, in a group of processes that all make the same of it.
        job: the job's file.
        running: what has started the workers.
    """

    def __init__(self, part: TrainedPart, job: Path, running: subprocess.Popen[bytes]) -> None:
        super().__init__(part)
        self._job = job
        self._running = running
        self._told_s = time.monotonic()
        self.restore(part.state())

    def forward(self, features: torch.Tensor, step: int) -> torch.Tensor:
        """Return the part's output for a step of training.

        Raises:
            CollabError: if a worker is lost; so do the other methods.
        """
        # What fills the last share up is an item of which it is known that it can be computed.
        mine = self._share(Order.FORWARD, features, features[-1:], step, 0)
        with self._sure():
            answers = super().forward(mine, step)
        return self._gathered(answers)[: len(features)]

    def backward(self, gradient: torch.Tensor, step: int, steps: int) -> torch.Tensor:
        """Learn from the gradient by the output, and return the one by what was given."""
        mine = self._share(Order.BACKWARD, gradient, torch.zeros_like(gradient[-1:]), step, steps)
        with self._sure():
            found = super().backward(mine, step, steps)
        return self._gathered(found)[: len(gradient)]

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the part's state of a checkpoint, on all sides."""
        super().restore(state)
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        data = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
        self._tell(Order.RESTORE, len(data))
        with self._sure():
            distributed.broadcast(data, LEADER)

    def watch(self) -> None:
        """See that the workers are there, and let them know that the cloud is."""
        if self._running.poll() is not None:
            raise lost(self._job, seen="they have ended")
        if time.monotonic() - self._told_s > _REST_S:
            self._tell(Order.REST)

    def end(self) -> None:
        """Let the workers go."""
        self._tell(Order.END)
        with suppress(subprocess.TimeoutExpired):
            self._running.wait(_END_S)

    def _share(self, order: Order, rows: torch.Tensor, filler: torch.Tensor, step: int, steps: int) -> torch.Tensor:
        """Scatter rows, as many to each process, and return those for this one."""
        processes = distributed.get_world_size()
        each = -(-len(rows) // processes)
        whole = torch.cat([rows, *[filler] * (each * processes - len(rows))])
        mine = torch.empty_like(whole[:each])
        self._tell(order, each, step, steps)
        with self._sure():
            distributed.scatter(mine, list(torch.split(whole, each)), src=LEADER)
        return mine

    def _gathered(self, mine: torch.Tensor) -> torch.Tensor:
        mine = mine.contiguous()
        found = [torch.empty_like(mine) for _ in range(distributed.get_world_size())]
        with self._sure():
            distributed.gather(mine, found, dst=LEADER)
        return torch.cat(found)

    def _tell(self, order: Order, size: int = 0, step: int = 0, steps: int = 0) -> None:
        with self._sure():
            distributed.broadcast(torch.tensor([order, size, step, steps]), LEADER)
        self._told_s = time.monotonic()

    @contextmanager
    def _sure(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as fault:
            # What has started them says more than a connection that broke.
            with suppress(subprocess.TimeoutExpired):
                self._running.wait(_END_S)
            raise lost(self._job, seen=f"one is lost: {str(fault).partition(chr(10))[0]}") from fault


@contextmanager
def team_of(config: CloudConfig, agreement: Agreement, task: Task, part: TrainedPart) -> Iterator[Team]:
    """Start workers, and let them go at the end; after an error they are ended.

    Raises:
        CollabError: if Part 2 cannot be trained in shares, or if the workers do not start.
    """
    _require_shares(task.parts[1])
    host = "127.0.0.1" if config.ray is None else _own_host(config.ray)
    listener = socket.create_server((host, 0))
    port = listener.getsockname()[1]
    store = distributed.TCPStore(  # type: ignore[attr-defined]
        host, port, config.workers, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
    )
    job = Job(
        agreement=agreement.sha256,
        training=config.training.model_copy(update={"model": config.training.model.absolute()}),
        threads=config.threads,
        processes=config.workers,
        host=host,
        port=port,
    )
    path = config.folder.absolute() / "job.json"
    write_atomic(path, job.model_dump_json().encode())
    with launched(_MODULE, path, workers=config.workers - 1, threads=config.threads, ray=config.ray) as running:
        awaited = [ready(rank) for rank in range(1, config.workers)]
        while not store.check(awaited):
            with suppress(subprocess.TimeoutExpired):
                running.wait(_POLL_S)
                raise lost(path)
        with group(store, 0, job):
            distribute(part, task)
            team = Team(part, path, running)
            yield team
            team.end()


def _require_shares(part: Part) -> None:
    for node in part.proto.graph.node:
        if node.op_type in _NOT_BY_SHARES:
            raise CollabError(
                f"node '{node.name}' ({node.op_type}) of Part 2 goes by all items of a step, or draws: several workers "
                "would each make something else of it; set workers = 1, or cut so that it is at the edge"
            )


def _own_host(other: str) -> str:
    """Return the address of this machine that HOST:PORT sees."""
    host, _, port = other.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, int(port)))  # of a datagram socket: nothing is sent
        found: str = probe.getsockname()[0]
    return found
