"""What every way to train has in common on the cloud's side: who takes part, the result, and waiting for each other."""

from __future__ import annotations

import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from math import inf
from typing import Any

import numpy as np

from siniantrust._files import sha256_bytes, write_atomic
from siniantrust.collab import collab_pb2 as pb
from siniantrust.collab._agreement import Agreement
from siniantrust.collab._config import CloudConfig
from siniantrust.collab._errors import CollabError, RefusedError
from siniantrust.collab._result import MODEL, model_bytes
from siniantrust.collab._task import Task

_LEFT_OUT = "left_out.json"
_FINISHED = "finished.json"
_TICK_S = 1.0
_PIECE_BYTES = 1 << 20


class Coordinator(ABC):
    """The cloud's side of one run. All calls may come from several threads.

    Args:
        config: the cloud's configuration.
        task: what is trained.
        agreement: what identifies the run.
    """

    def __init__(self, config: CloudConfig, task: Task, agreement: Agreement) -> None:
        self.config = config
        self.task = task
        self.agreement = agreement
        self.condition = threading.Condition()
        self.left_out: dict[str, str] = self._read(_LEFT_OUT)
        self.provenances: dict[str, str] = {}
        # Who has the result, and of what provenance its evidence was.
        self._finished: dict[str, str] = self._read(_FINISHED)
        self._seen_s = {edge.name: time.monotonic() for edge in config.edge}
        self._failure: Exception | None = None
        path = config.folder / MODEL
        self._result = path.read_bytes() if path.exists() else None
        self._result_sha256 = "" if self._result is None else sha256_bytes(self._result)

    @property
    def members(self) -> list[str]:
        """The edges that take part, sorted."""
        return sorted(edge.name for edge in self.config.edge if edge.name not in self.left_out)

    @property
    def is_done(self) -> bool:
        """Whether the result is there."""
        return self._result is not None

    @property
    def is_over(self) -> bool:
        """Whether every edge that takes part has the result."""
        return self.is_done and self._finished.keys() >= set(self.members)

    @property
    @abstractmethod
    def curve(self) -> list[dict[str, float]]:
        """Loss by steps, or loss and accuracy by epochs."""

    @abstractmethod
    def join(self, edge: str, steps: set[int], is_wanted: Callable[[], bool]) -> tuple[int, int]:
        """Return the generation, and the step to go on from (or the chunks that are here)."""

    @abstractmethod
    def step(self, edge: str, request: pb.StepRequest, is_wanted: Callable[[], bool]) -> Mapping[str, np.ndarray]:
        """Do a phase of a step, or give the answer of one that was done."""

    @abstractmethod
    def upload(self, edge: str, request: pb.UploadRequest) -> int:
        """Keep a chunk of features and return how many are here."""

    def on_left_out(self) -> None:  # noqa: B027 - nothing to do where nobody waits for anybody
        """Go on with those that are left; called with ``condition`` held."""

    def staffed(self) -> AbstractContextManager[None]:
        """Return a block in which the processes are there that steps need."""
        return nullcontext()

    def watch(self) -> None:  # noqa: B027 - nothing to do without such processes
        """Look after those processes; called with ``condition`` held.

        Raises:
            CollabError: if one is lost.
        """

    def work(self) -> None:
        """Do what is to be done outside of calls, until the result is there."""
        while not self.is_done:
            self.tick()

    def tick(self) -> None:
        """Wait a little, and leave out who was silent for too long.

        Raises:
            CollabError: if the run cannot go on.
        """
        with self.condition:
            self.condition.wait(_TICK_S)
            if self._failure is not None:
                raise self._failure
            if not self.is_done:
                self.watch()
            patience_s = self.config.limits.patience_s
            if patience_s is not None and not self.is_done:
                for edge in self.members:
                    if time.monotonic() - self._seen_s[edge] > patience_s:
                        self._leave_out(edge, f"silent for {patience_s:g} s, its limit")
            if not self.members:
                raise CollabError(
                    f"no edge is left: {'; '.join(f'{name}: {why}' for name, why in self.left_out.items())}"
                )

    def wait_for_edges(self) -> None:
        """Wait until every edge that takes part has the result, or was silent for too long."""
        patience_s = self.config.limits.patience_s or inf
        while any(
            edge not in self._finished and time.monotonic() - self._seen_s[edge] < patience_s for edge in self.members
        ):
            self.tick()

    def seen(self, edge: str) -> None:
        """Note that an edge is there."""
        self._seen_s[edge] = time.monotonic()

    def require_member(self, edge: str) -> None:
        """Refuse an edge that was left out.

        Raises:
            RefusedError: saying why it was.
        """
        if edge in self.left_out:
            raise RefusedError(f"edge '{edge}' was left out of this run: {self.left_out[edge]}")

    def leave_out(self, edge: str, why: str) -> None:
        """Go on without an edge, from now on and for ever."""
        with self.condition:
            if edge in self.members and not self.is_done:
                self._leave_out(edge, why)

    def fail(self, fault: Exception) -> None:
        """Stop the run; called with ``condition`` held."""
        self._failure = fault
        self.condition.notify_all()

    def finish(self, weights: Mapping[str, np.ndarray]) -> None:
        """Write the trained network.

        Raises:
            CollabError: if its numbers are no network's.
        """
        data = model_bytes(self.task, weights)
        write_atomic(self.config.folder / MODEL, data)
        with self.condition:
            self._result, self._result_sha256 = data, sha256_bytes(data)
            self.condition.notify_all()

    def fetch(self, edge: str, offset: int) -> pb.FetchAnswer:
        """Return a piece of the result; asking for what is behind its end says that the edge has it."""
        with self.condition:
            self.require_member(edge)
            if self._result is None:
                return pb.FetchAnswer(ready=False)
            if not 0 <= offset <= len(self._result):
                raise RefusedError(f"edge '{edge}': the result has {len(self._result)} bytes, no byte {offset}")
            if offset == len(self._result):
                self._finished[edge] = self.provenances.get(edge, "")
                write_atomic(self.config.folder / _FINISHED, json.dumps(self._finished).encode())
                self.condition.notify_all()
            return pb.FetchAnswer(
                ready=True,
                size_bytes=len(self._result),
                sha256=self._result_sha256,
                data=self._result[offset : offset + _PIECE_BYTES],
            )

    def record(self) -> dict[str, Any]:
        """Return what ``training.json`` says of this way to train."""
        shown = self._finished | self.provenances
        return {
            "edges": self.members,
            "provenance": {name: provenance for name, provenance in shown.items() if provenance},
            "left_out": self.left_out,
            "curve": self.curve,
        }

    def _leave_out(self, edge: str, why: str) -> None:
        self.left_out[edge] = why
        write_atomic(self.config.folder / _LEFT_OUT, json.dumps(self.left_out).encode())
        self.on_left_out()
        self.condition.notify_all()

    def _read(self, name: str) -> dict[str, str]:
        path = self.config.folder / name
        found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        return found
