"""An edge's process: take part until the result is here."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from siniantrust._files import sha256_bytes, write_atomic
from siniantrust.collab import _methods as methods
from siniantrust.collab import collab_pb2 as pb
from siniantrust.collab._agreement import Agreement, agreement_of
from siniantrust.collab._attest import Attestation
from siniantrust.collab._checked_file import hold
from siniantrust.collab._config import EdgeConfig
from siniantrust.collab._data import Items, load_items
from siniantrust.collab._edge_split import SplitEdge
from siniantrust.collab._edge_upload import UploadEdge
from siniantrust.collab._errors import CloudLostError, CollabError, JoinAgainError
from siniantrust.collab._link import Link
from siniantrust.collab._result import MODEL, RECORD, accuracy, read_record, same_network, write_record
from siniantrust.collab._task import Task, load_task
from siniantrust.collab._tls import load_grpc, read_certificate

_POLL_S = 0.5


def run_edge(config: EdgeConfig) -> Path:
    """Take part in one run to its end and return the trained model's path; done again, it goes on where it stopped.

    Raises:
        CollabError: if either side refuses the other, or the cloud's gradients are not those of the task.
        CloudLostError: if the cloud does not answer for ``give_up_s``.
    """
    load_grpc()
    torch.set_num_threads(config.threads)
    start_s = time.monotonic()
    with hold(config.folder):
        task = load_task(config.training, config.mask)
        agreement = agreement_of(config.training, task)
        if (config.folder / RECORD).exists():
            if read_record(config.folder)["agreement_sha256"] != agreement.sha256:
                raise CollabError(
                    f"folder {config.folder}: it holds the result of another run; give this run a folder of its own"
                )
            return config.folder / MODEL
        items = load_items(config.data, task)
        attestation = Attestation(config.attestation, read_certificate(config.certificate)[2])
        link = Link(config, agreement, attestation)
        try:
            _take_part(config, task, agreement, items, link, start_s)
        finally:
            link.close()
    return config.folder / MODEL


def _take_part(config: EdgeConfig, task: Task, agreement: Agreement, items: Items, link: Link, start_s: float) -> None:
    side: SplitEdge | UploadEdge
    if config.training.mode == "upload":
        side = UploadEdge(config, task, agreement, items, link)
    else:
        side = SplitEdge(config, task, agreement, items, link)
    fetched: bytes | None = None
    while fetched is None:
        side.run()
        trained_s = time.monotonic() - start_s
        payload_bytes, sent_bytes, received_bytes = link.tensor_bytes, link.sent_bytes, link.received_bytes
        try:
            fetched = _fetch(link)
        except JoinAgainError:
            continue  # the cloud came back, maybe with a checkpoint from before this edge's end
    model = same_network(fetched, task)
    write_atomic(config.folder / MODEL, model)
    record: dict[str, Any] = {
        "side": "edge",
        "name": config.name,
        "agreement_sha256": agreement.sha256,
        "mode": config.training.mode,
        "items": len(items.labels),
        "calls": dict(link.calls),
        "payload_bytes": payload_bytes,
        "sent_bytes": sent_bytes,
        "received_bytes": received_bytes,
        "model_bytes": len(model),
        "cloud_provenance": link.provenance,
        "seconds": trained_s,
        **side.record(),
    }
    if len(items.heldout_labels):
        record["accuracy"] = accuracy(model, items.heldout_inputs, items.heldout_labels)
    write_record(config.folder, record)
    try:
        # What is behind the end is asked for to say that the result is here; the cloud need not hear it.
        link.call(methods.FETCH, pb.FetchRequest(offset=len(model)))
    except (CloudLostError, JoinAgainError):
        return


def _fetch(link: Link) -> bytes:
    """Wait for the result and return it.

    Raises:
        CollabError: if it is not what its SHA-256 says.
        JoinAgainError: if the cloud does not know this edge any more.
    """
    data = bytearray()
    while True:
        answer = link.call(methods.FETCH, pb.FetchRequest(offset=len(data)))
        if not answer.ready:
            time.sleep(_POLL_S)
            continue
        data += answer.data
        if len(data) >= answer.size_bytes:
            break
    if sha256_bytes(bytes(data)) != answer.sha256:
        raise CollabError("the cloud's result is not what its SHA-256 says; it changed on the way")
    return bytes(data)
