"""An edge's bare link to the cloud, and what a test sends by it that no edge would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from collab_runs import Here, Setup

from siniantrust.collab import (
    EdgeConfig,
    load_config,
)
from siniantrust.collab import collab_pb2 as pb
from siniantrust.collab._agreement import agreement_of
from siniantrust.collab._attest import Attestation
from siniantrust.collab._link import Link
from siniantrust.collab._task import load_task
from siniantrust.collab._tls import read_certificate
from siniantrust.collab._wire import to_messages


@contextmanager
def link(here: Here, name: str, **changes: Any) -> Iterator[Link]:
    """Yield an edge's bare link, by which a test sends what no edge would."""
    config = load_config(here.setup.write_edge(name, here.address, **changes), EdgeConfig)
    task = load_task(config.training, config.mask)
    attestation = Attestation(config.attestation, read_certificate(config.certificate)[2])
    made = Link(config, agreement_of(config.training, task), attestation)
    try:
        yield made
    finally:
        made.close()


def upload(features: np.ndarray, labels: np.ndarray, *, chunk: int = 0, chunks: int = 1) -> pb.UploadRequest:
    """Return a chunk."""
    request = pb.UploadRequest(chunk=chunk, chunks=chunks)
    to_messages({"pool": features, "labels": labels}, request.tensors)
    return request


FEATURES = np.ones((2, 4, 4, 4), np.float32)
LABELS = np.array([0, 1])


def upload_setup(folder: Path, **changes: Any) -> Setup:
    """Return a masked upload of two edges."""
    return Setup(folder, edges=("a", "b"), training={"mode": "upload", "steps": 3}, **changes).write()
