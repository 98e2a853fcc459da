"""An edge's side of masked upload: each item's features are computed and masked once, and sent until they have arrived.

A chunk is on the edge's disk before it is sent, and what is sent again is that chunk. So no item's features are ever
masked twice, with two draws of noise that could be averaged.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from siniantrust._files import sha256_file
from siniantrust.collab import _methods as methods
from siniantrust.collab import collab_pb2 as pb
from siniantrust.collab._agreement import Agreement
from siniantrust.collab._checked_file import read_checked, write_checked
from siniantrust.collab._config import EdgeConfig, EnclaveSection
from siniantrust.collab._data import Items
from siniantrust.collab._errors import CollabError, JoinAgainError
from siniantrust.collab._link import Link
from siniantrust.collab._task import Task
from siniantrust.collab._wire import LABELS, to_messages
from siniantrust.graph import Part
from siniantrust.odla import DeviceSpec, open_part
from siniantrust.trust import EnclaveSpec, launch, runs_prelude, seal_part

_KEY_BYTES = 32
_CONTEXT = b"siniantrust collab"
Run = Callable[[np.ndarray], np.ndarray]


class UploadEdge:
    """Sends the features of all items, once.

    Args:
        config: the edge's configuration.
        task: what is trained.
        agreement: what identifies the run.
        items: the edge's own items.
        link: to the cloud.

    Raises:
        CollabError: if the folder holds chunks of another run, or of other data.
    """

    def __init__(self, config: EdgeConfig, task: Task, agreement: Agreement, items: Items, link: Link) -> None:
        self._config = config
        self._outbox = config.folder / "outbox"
        self._task = task
        self._items = items
        self._link = link
        self._chunks = -(-len(items.labels) // config.batch)
        self._whose = f"{agreement.sha256} {sha256_file(config.data)} {config.batch}".encode()
        self._mark = self._outbox / "run"
        if self._mark.exists() and read_checked(self._mark) != self._whose:
            raise CollabError(
                f"outbox {self._outbox}: its chunks are of another run, other data or another batch; give this run a "
                "folder of its own"
            )

    def run(self) -> None:
        """Send every chunk that the cloud does not have.

        Raises:
            RefusedError: if the cloud refuses one.
            CloudLostError: if it is gone for too long.
        """
        held = self._join()
        if held == self._chunks:
            return
        if not self._mark.exists():
            write_checked(self._mark, self._whose)
        with _part_one(self._config, self._task) as run:
            while held < self._chunks:
                request = self._chunk(held, run)
                try:
                    held = self._link.call(methods.UPLOAD, request).chunks_held
                except JoinAgainError:
                    held = self._join()

    def record(self) -> dict[str, Any]:
        """Return what ``training.json`` says of the upload."""
        return {"chunks": self._chunks, "enclave": self._config.enclave and self._config.enclave.provider}

    def _join(self) -> int:
        held: int = self._link.join([]).step
        if held > self._chunks:
            raise CollabError(
                f"the cloud has {held} chunks of this edge, which has {self._chunks}; were data replaced?"
            )
        return held

    def _chunk(self, number: int, run: Run) -> pb.UploadRequest:
        path = self._outbox / f"{number:07d}.chunk"
        if not path.exists():
            rows = slice(number * self._config.batch, (number + 1) * self._config.batch)
            made = pb.UploadRequest(chunk=number, chunks=self._chunks)
            arrays = {self._task.features.name: run(self._items.inputs[rows]), LABELS: self._items.labels[rows]}
            to_messages(arrays, made.tensors)
            write_checked(path, made.SerializeToString())
        request: pb.UploadRequest = pb.UploadRequest.FromString(bytes(read_checked(path)))
        return request


@contextmanager
def _part_one(config: EdgeConfig, task: Task) -> Iterator[Run]:
    """Yield what runs Part 1 with its mask: ONNX Runtime here, or an enclave."""
    part = task.parts[0]
    first, last = part.inputs[0].name, part.outputs[0].name
    if config.enclave is not None:
        with _in_enclave(config.enclave, part, config.threads) as run_there:
            yield lambda inputs: run_there({first: inputs})[last]
        return
    import onnxruntime

    # Masks draw their noise from ONNX Runtime, which starts where it is told; nobody else knows where.
    onnxruntime.set_seed(secrets.randbits(63))
    device, executable = open_part(DeviceSpec("edge", options={"threads": config.threads}), part)
    try:
        yield lambda inputs: executable.run({first: inputs})[last]
    finally:
        executable.close()
        device.close()


@contextmanager
def _in_enclave(section: EnclaveSection, part: Part, threads: int) -> Iterator[Callable[..., dict[str, np.ndarray]]]:
    spec = EnclaveSpec(
        provider=section.provider,
        memory_bytes=section.memory_bytes,
        threads=threads,
        accept=section.accept,
        allow_missing=section.allow_missing,
    )
    key = os.urandom(_KEY_BYTES)
    sealed = seal_part(part, key=key, context=_CONTEXT, prelude=runs_prelude(section.provider))
    enclave = launch(spec)
    try:
        enclave.load(part.name, sealed.skeleton, sealed.sealed, key, context=_CONTEXT)
        yield lambda inputs: enclave.run(part.name, inputs)
    finally:
        enclave.close()
