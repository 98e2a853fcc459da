"""Runs across edge and cloud, for benchmarks: a network, edges whose data differ, processes, bytes on the wire."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from _study_data import Items
from _study_networks import export
from torch import nn

from siniantrust.collab import write_identity

CUT, LAST_CUT = "c003-2.MaxPool_output_0", "c009-8.Relu_output_0"
EDGES = ("north", "east", "west")
_START = ("-c", "import sys; from siniantrust.cli import main; sys.exit(main())")
_UNEVENNESS = 0.5
_PIECE_BYTES = 1 << 16
_WAIT_S = 1200


def network(*, seed: int) -> nn.Sequential:
    """Return two convolutions, each pooled, and two dense layers, for images of 28 x 28 in 10 classes."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 49, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def fit(net: nn.Module, inputs: np.ndarray, labels: np.ndarray, *, epochs: int, batch: int, rate: float) -> None:
    """Train on one machine as both sides would: Adam with a cosine schedule, one thread."""
    torch.set_num_threads(1)
    optimiser = torch.optim.Adam(net.parameters(), rate)
    per_epoch = len(labels) // batch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * per_epoch)
    generator = np.random.default_rng(0)
    images, classes = torch.from_numpy(inputs), torch.from_numpy(labels)
    for _ in range(epochs):
        order = torch.from_numpy(generator.permutation(len(labels)))
        for rows in torch.split(order[: per_epoch * batch], batch):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(images[rows]), classes[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()


def shares(labels: np.ndarray, *, seed: int) -> dict[str, np.ndarray]:
    """Return each edge's rows: the shares of every class follow a Dirichlet distribution (Hsu, Qi and Brown 2019)."""
    generator = np.random.default_rng(seed)
    found: dict[str, list[np.ndarray]] = {edge: [] for edge in EDGES}
    for each in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == each))
        ends = (np.cumsum(generator.dirichlet([_UNEVENNESS] * len(EDGES)))[:-1] * len(rows)).astype(int)
        for edge, part in zip(EDGES, np.split(rows, ends), strict=True):
            found[edge].append(part)
    return {edge: np.concatenate(parts) for edge, parts in found.items()}


@dataclass
class Relay:
    """Counts the bytes of everything that goes through it, TLS records, HTTP/2 frames and handshakes included."""

    target: tuple[str, int]
    total_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> str:
        """Listen, and return the address."""
        listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    def _accept(self, listener: socket.socket) -> None:
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(self.target)
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(_PIECE_BYTES):
                with self._lock:
                    self.total_bytes += len(data)
                target.sendall(data)
        except OSError:
            return
        finally:
            target.close()


@dataclass(frozen=True)
class Ended:
    """What a run left: the trained model, each edge's ``training.json``, and the bytes on the wire."""

    model: bytes
    records: Mapping[str, dict[str, Any]]
    wire_bytes: int

    @property
    def payload_bytes(self) -> int:
        """Bytes of tensors, both ways, all edges together; and of the trained model that each of them fetches."""
        return sum(record["payload_bytes"] + record["model_bytes"] for record in self.records.values())


def run_processes(
    start: nn.Sequential,
    items: Items,
    rows: Mapping[str, np.ndarray],
    *,
    training: Mapping[str, Any],
    batches: Mapping[str, int],
    mask: Mapping[str, Any] | None = None,
    calibration: np.ndarray | None = None,
) -> Ended:
    """Train with the cloud and every edge as processes of their own, over loopback, each with one thread."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(export(start, (1, 28, 28), "collab"))
        for side in ("cloud", *EDGES):
            write_identity(side, folder)
        tables = {"training": {"model": "model.onnx", **training}}
        if mask is not None and calibration is not None:
            np.save(folder / "calibration.npy", calibration)
            tables["mask"] = {"calibration": "calibration.npy", **mask}
        top = {"folder": "at-cloud", "listen": "127.0.0.1:0", "key": "cloud.key", "certificate": "cloud.crt"}
        edges = "".join(f'[[edge]]\nname = "{edge}"\ncertificate = "{edge}.crt"\n' for edge in EDGES)
        (folder / "cloud.toml").write_text(_toml(top, tables) + edges)
        cloud = _process(folder, "cloud", "cloud")
        assert cloud.stdout is not None  # noqa: S101 - asked for above
        host, port = cloud.stdout.readline().split()[-1].rsplit(":", 1)
        relay = Relay((host, int(port)))
        address = relay.start()
        running = [cloud]
        for edge in EDGES:
            np.savez(
                folder / f"{edge}.npz", inputs=items.train_inputs[rows[edge]], labels=items.train_labels[rows[edge]]
            )
            own = {"name": edge, "folder": f"at-{edge}", "cloud": address, "cloud_certificate": "cloud.crt"}
            own |= {"key": f"{edge}.key", "certificate": f"{edge}.crt", "data": f"{edge}.npz"}
            (folder / f"{edge}.toml").write_text(_toml({**own, "batch": batches[edge]}, tables))
            running.append(_process(folder, "edge", edge))
        try:
            for process in running:
                _, said = process.communicate(timeout=_WAIT_S)
                if process.returncode:
                    raise RuntimeError(said)
        finally:
            for process in running:
                process.kill()
        records = {edge: json.loads((folder / f"at-{edge}" / "training.json").read_text()) for edge in EDGES}
        return Ended((folder / "at-cloud" / "model.onnx").read_bytes(), records, relay.total_bytes)


def scores(model: bytes, inputs: np.ndarray) -> np.ndarray:
    """Return a model's scores by ONNX Runtime."""
    from siniantrust import graph
    from siniantrust.odla import DeviceSpec, open_part

    (part,) = graph.split(graph.load_model(onnx.load_from_string(model)), [])
    device, run = open_part(DeviceSpec("scores", options={"threads": 1}), part)
    found = run.run({"image": inputs})["scores"]
    run.close()
    device.close()
    return found


def _process(folder: Path, side: str, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *_START, "train", side, str(folder / f"{name}.toml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _toml(top: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [f"{name} = {json.dumps(value)}" for name, value in top.items()]
    for table, content in tables.items():
        lines += ["", f"[{table}]", *(f"{name} = {json.dumps(value)}" for name, value in content.items())]
    return "\n".join(lines) + "\n"
