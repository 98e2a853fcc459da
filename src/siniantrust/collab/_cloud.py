"""The cloud's process: serve until every edge has the result."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from siniantrust.collab._agreement import agreement_of
from siniantrust.collab._asynchronous import AsynchronousCloud
from siniantrust.collab._attest import Attestation
from siniantrust.collab._checked_file import hold
from siniantrust.collab._config import CloudConfig
from siniantrust.collab._coordinator import Coordinator
from siniantrust.collab._errors import CollabError
from siniantrust.collab._result import MODEL, RECORD, write_record
from siniantrust.collab._service import CALLS_AT_A_TIME, Service
from siniantrust.collab._synchronous import SynchronousCloud
from siniantrust.collab._task import load_task
from siniantrust.collab._tls import load_grpc, read_certificate, server_credentials
from siniantrust.collab._upload_cloud import UploadCloud
from siniantrust.trust.tls import Address, parse_address

_SPARE_THREADS = 4  # for calls that are refused
_GRACE_S = 2.0


def run_cloud(config: CloudConfig, on_ready: Callable[[Address], None]) -> Path:
    """Serve one run to its end and return the trained model's path; what an earlier process has done is not done again.

    Args:
        config: the cloud's configuration.
        on_ready: called with the address when edges can come.

    Raises:
        CollabError: if the run cannot go on.
        OSError: if the disk does not take a checkpoint.
    """
    grpc = load_grpc()
    torch.set_num_threads(config.threads)
    start_s = time.monotonic()
    with hold(config.folder):
        task = load_task(config.training, config.mask)
        coordinator = _coordinator(config)(config, task, agreement_of(config.training, task))
        if coordinator.is_over and (config.folder / RECORD).exists():
            return config.folder / MODEL
        attestation = Attestation(config.attestation, read_certificate(config.certificate)[2])
        service = Service(coordinator, attestation)
        with ExitStack() as stack:
            with coordinator.staffed():
                for edge in coordinator.members:  # none could come before
                    coordinator.seen(edge)
                server, address = _serve(grpc, config, service)
                stack.callback(lambda: server.stop(_GRACE_S).wait())
                on_ready(address)
                coordinator.work()
            coordinator.wait_for_edges()
        write_record(
            config.folder,
            {
                "side": "cloud",
                "agreement_sha256": coordinator.agreement.sha256,
                "mode": config.training.mode,
                "seconds": time.monotonic() - start_s,
                **coordinator.record(),
            },
        )
    return config.folder / MODEL


def _coordinator(config: CloudConfig) -> type[Coordinator]:
    if config.training.mode == "upload":
        return UploadCloud
    return SynchronousCloud if config.training.arrivals == "synchronous" else AsynchronousCloud


def _serve(grpc: Any, config: CloudConfig, service: Service) -> tuple[Any, Address]:
    address = parse_address(config.listen)
    # In synchronous training a call of each edge waits for the others.
    pool = ThreadPoolExecutor(CALLS_AT_A_TIME * len(config.edge) + _SPARE_THREADS)
    server = grpc.server(
        pool,
        options=[
            ("grpc.max_receive_message_length", config.limits.message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ],
    )
    server.add_generic_rpc_handlers([service.handler()])
    peers = {edge.name: edge.certificate for edge in config.edge}
    credentials = server_credentials(config.key, config.certificate, peers)
    try:
        port = server.add_secure_port(str(address), credentials)
    except RuntimeError:
        raise CollabError(f"{address}: cannot be listened on; is it taken?") from None
    server.start()
    return server, Address(address.host, port)
