"""What both ways of split learning have in common on the cloud's side: Part 2, which learns while edges call."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from siniantrust.collab import collab_pb2 as pb
from siniantrust.collab._agreement import Agreement
from siniantrust.collab._checkpoints import Checkpoints
from siniantrust.collab._config import CloudConfig
from siniantrust.collab._coordinator import Coordinator
from siniantrust.collab._curve import Curve
from siniantrust.collab._errors import RefusedError
from siniantrust.collab._middle import Middle
from siniantrust.collab._task import Task


class SplitCloud(Coordinator):
    """Holds Part 2 and what is kept of its training.

    Args:
        config: the cloud's configuration.
        task: what is trained.
        agreement: what identifies the run.
        steps: how many steps Part 2 takes.
    """

    def __init__(self, config: CloudConfig, task: Task, agreement: Agreement, *, steps: int) -> None:
        super().__init__(config, task, agreement)
        self._training = config.training
        self._middle = Middle(task, config.training)
        self._curve = Curve(steps)
        self._checkpoints = Checkpoints(config.folder / "checkpoints", agreement.sha256)

    @property
    def curve(self) -> list[dict[str, float]]:
        """Loss by steps; empty where labels stay at the edges, which alone know it."""
        return self._curve.points

    def staffed(self) -> AbstractContextManager[None]:
        """Return a block in which Part 2 is trained by the configured number of processes."""
        return nullcontext() if self.is_done else self._middle.staffed(self.config, self.agreement)

    def watch(self) -> None:
        """Look after those processes.

        Raises:
            CollabError: if one is lost.
        """
        self._middle.watch()

    def upload(self, edge: str, request: pb.UploadRequest) -> int:
        """Refuse: features are not sent once here.

        Raises:
            RefusedError: always.
        """
        raise RefusedError(f"edge '{edge}': chunk {request.chunk} came, but this run is split learning")
