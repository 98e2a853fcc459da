"""Small runs across edge and cloud: a network, data of several edges, keys, configuration files, and processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from siniantrust.collab import CloudConfig, EdgeConfig, load_config, run_cloud, run_edge, write_identity

START = ("-c", "import sys; from siniantrust.cli import main; sys.exit(main())")
CLASSES = 4
SIDE = 8
CUT, LAST_CUT = "c003-pool", "c006-hidden"


def network(*, seed: int = 0, channels: int = 4) -> onnx.ModelProto:
    """Return a convolution, a pooling and two dense layers over images of 8 x 8, untrained."""
    generator = np.random.default_rng(seed)
    inner = channels * (SIDE // 2) ** 2

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else shape[0]
        return numpy_helper.from_array((generator.normal(size=shape) / fan_in**0.5).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["conv"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"], "relu"),
        helper.make_node("MaxPool", ["relu"], ["pool"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pool"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "w2", "b2"], ["dense"], "dense", transB=1),
        helper.make_node("Relu", ["dense"], ["hidden"], "hidden"),
        helper.make_node("Gemm", ["hidden", "w3", "b3"], ["scores"], "scores", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", CLASSES])],
        [
            weight("w1", channels, 1, 3, 3),
            weight("b1", channels),
            weight("w2", 16, inner),
            weight("b2", 16),
            weight("w3", CLASSES, 16),
            weight("b3", CLASSES),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def pictures(items: int, *, seed: int, classes: Sequence[int] = range(CLASSES)) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy pictures, in each of which one quarter is bright, and which quarter that is."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(list(classes), items)
    images = generator.normal(scale=0.5, size=(items, 1, SIDE, SIDE)).astype(np.float32)
    half = SIDE // 2
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[0, row * half : (row + 1) * half, column * half : (column + 1) * half] += 1
    return images, labels.astype(np.int64)


@dataclass
class Setup:
    """A run's files, and its configuration, which a test may change before ``write``."""

    folder: Path
    edges: tuple[str, ...] = ("a", "b", "c")
    training: dict[str, Any] = field(default_factory=dict)
    cloud: dict[str, Any] = field(default_factory=dict)
    edge: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    cloud_sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    edge_sections: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self) -> Setup:
        """Write keys, model, data and configuration files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "cloud.key").exists():
            onnx.save(network(), self.folder / "model.onnx")
            for name in ("cloud", *self.edges):
                write_identity(name, self.folder)
            for number, name in enumerate(self.edges):
                inputs, labels = pictures(96, seed=number, classes=[number % CLASSES, (number + 1) % CLASSES, 3])
                np.savez(self.folder / f"{name}.npz", inputs=inputs, labels=labels, heldout=np.arange(96) >= 80)
        self.write_cloud()
        return self

    def write_cloud(self) -> None:
        """Write the cloud's configuration."""
        top = {"folder": "at-cloud", "listen": "127.0.0.1:0", "key": "cloud.key", "certificate": "cloud.crt"}
        tables = {"training": self._training(), **self.sections, **self.cloud_sections}
        text = _toml(top | self.cloud, tables)
        text += "".join(f'\n[[edge]]\nname = "{name}"\ncertificate = "{name}.crt"\n' for name in self.edges)
        (self.folder / "cloud.toml").write_text(text)

    def write_edge(self, name: str, address: object, *, data: str | None = None, **changes: Any) -> Path:
        """Write an edge's configuration for a cloud at ``address``."""
        top = {
            "name": name,
            "folder": f"at-{name}",
            "cloud": str(address),
            "cloud_certificate": "cloud.crt",
            "key": f"{name}.key",
            "certificate": f"{name}.crt",
            "data": data or f"{name}.npz",
            "batch": 16,
            "give_up_s": 60.0,
        }
        path = self.folder / f"{name}.toml"
        training = self._training() | changes.pop("training", {})
        tables = {"training": training, **self.sections, **self.edge_sections} | changes.pop("sections", {})
        path.write_text(_toml(top | self.edge | changes, tables))
        return path

    def _training(self) -> dict[str, Any]:
        base = {"model": "model.onnx", "cut": CUT, "mode": "split", "steps": 12, "checkpoint_every": 4}
        return base | {"learning_rate": 0.01} | self.training

    def record(self, side: str) -> dict[str, Any]:
        """Return the training.json that a side wrote."""
        found: dict[str, Any] = json.loads((self.folder / f"at-{side}" / "training.json").read_text())
        return found

    def newest_checkpoint(self) -> int:
        """Return the step of the cloud's newest checkpoint."""
        return max((int(path.stem) for path in (self.folder / "at-cloud/checkpoints").glob("*.checkpoint")), default=0)

    def model(self, side: str) -> bytes:
        """Return the trained model that a side wrote."""
        return (self.folder / f"at-{side}" / "model.onnx").read_bytes()


def _toml(top: dict[str, Any], tables: dict[str, dict[str, Any]]) -> str:
    lines = [f"{name} = {_value(value)}" for name, value in top.items()]
    for table, content in tables.items():
        lines += ["", f"[{table}]", *(f"{name} = {_value(value)}" for name, value in content.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


class Here:
    """Sides as threads of this process, over real connections; none may take longer than ``limit_s`` to end."""

    def __init__(self, setup: Setup, *, limit_s: float = 120.0) -> None:
        self.setup = setup
        self.limit_s = limit_s
        self.faults: dict[str, BaseException] = {}
        self._threads: dict[str, threading.Thread] = {}
        self.address = ""

    def start_cloud(self) -> str:
        """Start the cloud and return its address."""
        ready = threading.Event()

        def serve() -> None:
            def on_ready(address: object) -> None:
                self.address = str(address)
                ready.set()

            try:
                run_cloud(load_config(self.setup.folder / "cloud.toml", CloudConfig), on_ready)
            finally:
                ready.set()

        self._start("cloud", serve)
        assert ready.wait(self.limit_s)
        return self.address

    def start_edge(self, name: str, **changes: Any) -> None:
        """Start an edge."""
        path = self.setup.write_edge(name, self.address, **changes)
        self._start(name, lambda: run_edge(load_config(path, EdgeConfig)))

    def wait(self, *names: str) -> None:
        """Wait for sides to end."""
        for name in names:
            self._threads[name].join(self.limit_s)
            assert not self._threads[name].is_alive(), name

    def run(self) -> None:
        """Run all sides to the end, and raise what any of them raised."""
        self.start_cloud()
        for name in self.setup.edges:
            self.start_edge(name)
        self.wait(*self.setup.edges, "cloud")
        for fault in self.faults.values():
            raise fault

    def _start(self, name: str, work: Any) -> None:
        def guarded() -> None:
            try:
                work()
            except BaseException as fault:  # noqa: BLE001 - the test looks at it
                self.faults[name] = fault

        self._threads[name] = threading.Thread(target=guarded, daemon=True)
        self._threads[name].start()


@contextmanager
def process(folder: Path, side: str, name: str) -> Iterator[subprocess.Popen[str]]:
    """Run a side as a process of its own; it is killed at the end if it still runs."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    running = subprocess.Popen(
        [sys.executable, *START, "train", side, str(folder / f"{name}.toml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def address_of(cloud: subprocess.Popen[str]) -> str:
    """Wait until a cloud's process says where it listens."""
    assert cloud.stdout is not None
    line = cloud.stdout.readline()
    assert line.startswith("training at "), line + (cloud.stderr.read() if cloud.stderr else "")
    return line.split()[-1]
