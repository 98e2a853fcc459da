"""Masked upload on the cloud's side: features are gathered once, then Part 2 is trained on them alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from siniantrust.collab import collab_pb2 as pb
from siniantrust.collab._agreement import Agreement
from siniantrust.collab._config import CloudConfig
from siniantrust.collab._coordinator import Coordinator
from siniantrust.collab._errors import RefusedError
from siniantrust.collab._features import FeatureStore
from siniantrust.collab._part_two import Job, read_outcome, run_job
from siniantrust.collab._task import Task


class UploadCloud(Coordinator):
    """Coordinates edges that each send their features once."""

    def __init__(self, config: CloudConfig, task: Task, agreement: Agreement) -> None:
        super().__init__(config, task, agreement)
        self.store = FeatureStore(config.folder / "features", agreement.sha256, task, max_items=config.limits.items)
        self._curve: list[dict[str, float]] = []

    @property
    def curve(self) -> list[dict[str, float]]:
        """Loss and accuracy by epochs."""
        return self._curve

    def join(self, edge: str, steps: set[int], is_wanted: Callable[[], bool]) -> tuple[int, int]:
        """Return how many of this edge's chunks are here."""
        _ = steps, is_wanted
        with self.condition:
            self.require_member(edge)
            return 0, self.store.chunks_held(edge)

    def step(self, edge: str, request: pb.StepRequest, is_wanted: Callable[[], bool]) -> Mapping[str, np.ndarray]:
        """Refuse: there are no steps here.

        Raises:
            RefusedError: always.
        """
        _ = is_wanted
        raise RefusedError(f"edge '{edge}': step {request.step} came, but this run is a masked upload")

    def upload(self, edge: str, request: pb.UploadRequest) -> int:
        """Keep a chunk.

        Raises:
            RefusedError: if it is not what it should be.
            OSError: if it cannot be written; it can be sent again.
        """
        with self.condition:
            self.require_member(edge)
            self.store.add(edge, request)
            self.condition.notify_all()
            return self.store.chunks_held(edge)

    def work(self) -> None:
        """Wait for all features, then train; what an earlier process has trained is read again.

        Raises:
            CollabError: if training fails.
        """
        while not self.is_done and not self._is_complete():
            self.tick()
        job = Job.of(self.config, self.agreement, edges=self.members)
        if not self.is_done:
            run_job(job, workers=self.config.workers, ray=self.config.ray)
        weights, self._curve = read_outcome(job)
        if not self.is_done:
            self.finish(weights)

    def _is_complete(self) -> bool:
        with self.condition:
            return all(self.store.is_complete(edge) for edge in self.members)
