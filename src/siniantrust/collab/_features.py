"""Features that edges sent once: kept as they came, a file for each chunk, and read back to train with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from siniantrust.collab import collab_pb2 as pb
from siniantrust.collab._checked_file import read_checked, write_checked
from siniantrust.collab._errors import CollabError, RefusedError
from siniantrust.collab._task import Task
from siniantrust.collab._wire import LABELS, check_labels, from_messages, from_own, label_tensor

_MAX_CHUNKS = 1_000_000


class FeatureStore:
    """The chunks of all edges, in a folder of each.

    Args:
        folder: where they lie.
        agreement: the run's SHA-256.
        task: what features look like.
        max_items: how many one edge may send.

    Raises:
        CollabError: if the folder holds another run's features.
    """

    def __init__(self, folder: Path, agreement: str, task: Task, *, max_items: int) -> None:
        self._folder = folder
        self._task = task
        self._max_items = max_items
        self._held: dict[str, int] = {}
        self._items: dict[str, int] = {}
        self._total: dict[str, int] = {}
        mark = folder / "run"
        if mark.exists():
            if read_checked(mark) != agreement.encode():
                raise CollabError(f"features {folder}: they are of another run; give this run a folder of its own")
        else:
            write_checked(mark, agreement.encode())

    def chunks_held(self, edge: str) -> int:
        """Return how many chunks of an edge are there, from the first on."""
        held = self._held.get(edge, 0)
        while self._path(edge, held).exists():
            held += 1
        self._held[edge] = held
        return held

    def is_complete(self, edge: str) -> bool:
        """Return whether an edge has sent all that it announced."""
        held = self.chunks_held(edge)
        return bool(held) and held == self._announced(edge)

    def add(self, edge: str, request: pb.UploadRequest) -> None:
        """Keep a chunk; one that is already there is not kept again, and must be the same.

        Raises:
            RefusedError: if it does not fit, is another than the one that is there, or is too much.
            OSError: if it cannot be written.
        """
        origin = f"edge '{edge}', chunk {request.chunk}"
        held = self.chunks_held(edge)
        data = request.SerializeToString(deterministic=True)
        if request.chunk < held:
            if bytes(read_checked(self._path(edge, request.chunk))) != data:
                raise RefusedError(f"{origin}: it was sent before with other contents")
            return
        if request.chunk > held or not 0 < request.chunks <= _MAX_CHUNKS or request.chunk >= request.chunks:
            raise RefusedError(f"{origin}: expected chunk {held} of those announced ({request.chunks})")
        if held and request.chunks != self._announced(edge):
            raise RefusedError(f"{origin}: {self._announced(edge)} chunks were announced before, now {request.chunks}")
        arrays = self._arrays(request, origin)
        total = self._count(edge, held) + len(arrays[LABELS])
        if total > self._max_items:
            raise RefusedError(f"{origin}: {total} items are over the limit of {self._max_items}")
        write_checked(self._path(edge, request.chunk), data)
        self._items[edge] = total

    def read(self, edges: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return features and labels of ``edges``, in their order.

        Raises:
            CollabError: if a file is damaged.
        """
        found = []
        for edge in edges:
            for chunk in range(self.chunks_held(edge)):
                request = pb.UploadRequest.FromString(bytes(read_checked(self._path(edge, chunk))))
                found.append(from_own(request.tensors))
        return (
            np.concatenate([arrays[self._task.features.name] for arrays in found]),
            np.concatenate([arrays[LABELS] for arrays in found]),
        )

    def _arrays(self, request: pb.UploadRequest, origin: str) -> dict[str, np.ndarray]:
        arrays = from_messages(request.tensors, [self._task.features, label_tensor()], origin=origin)
        check_labels(arrays[LABELS], self._task.classes, origin=origin)
        return arrays

    def _announced(self, edge: str) -> int:
        """Return how many chunks there will be, as the first one says."""
        if edge not in self._total:
            self._total[edge] = pb.UploadRequest.FromString(bytes(read_checked(self._path(edge, 0)))).chunks
        return self._total[edge]

    def _count(self, edge: str, held: int) -> int:
        if edge not in self._items:
            self._items[edge] = len(self.read([edge])[1]) if held else 0
        return self._items[edge]

    def _path(self, edge: str, chunk: int) -> Path:
        return self._folder / edge / f"{chunk:07d}.chunk"
