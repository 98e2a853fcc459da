"""What a run leaves: the trained network as one ordinary ONNX model, and ``training.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from siniantrust._files import write_atomic
from siniantrust.collab._errors import CollabError
from siniantrust.collab._task import Task, with_weights
from siniantrust.graph import Part, digest, load_model, split
from siniantrust.odla import DeviceSpec, open_part

MODEL = "model.onnx"
RECORD = "training.json"
_ROWS = 500


def model_bytes(task: Task, weights: Mapping[str, np.ndarray]) -> bytes:
    """Return the whole network with trained weights, byte for byte the same for the same numbers."""
    data: bytes = with_weights(task.model, dict(weights)).SerializeToString(deterministic=True)
    return data


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write ``training.json``, with the SHA-256 of the trained model as plans and audits of it have it."""
    bound = {**record, "trained_sha256": digest(onnx.load(folder / MODEL))}
    write_atomic(folder / RECORD, (json.dumps(bound, indent=1, allow_nan=False) + "\n").encode())


def read_record(folder: Path) -> dict[str, Any]:
    """Return what ``write_record`` wrote."""
    found: dict[str, Any] = json.loads((folder / RECORD).read_text())
    return found


def accuracy(model: bytes, inputs: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of items, of which there is at least one, that a model names rightly, by ONNX Runtime."""
    (part,) = split(load_model(onnx.load_from_string(model)), [])
    right = sum(
        int((scores.argmax(1) == labels[start : start + len(scores)]).sum())
        for start, scores in zip(range(0, len(labels), _ROWS), _scores(part, inputs), strict=True)
    )
    return right / len(labels)


def _scores(part: Part, inputs: np.ndarray) -> list[np.ndarray]:
    device, run = open_part(DeviceSpec("accuracy", options={"threads": 1}), part)
    try:
        name, out = part.inputs[0].name, part.outputs[0].name
        return [run.run({name: inputs[start : start + _ROWS]})[out] for start in range(0, len(inputs), _ROWS)]
    finally:
        run.close()
        device.close()


def same_network(data: bytes, task: Task) -> bytes:
    """Return ``data`` if it is the run's network but for its numbers.

    Raises:
        CollabError: if the cloud sent something else.
    """
    try:
        found = onnx.load_from_string(data)
    except Exception:  # noqa: BLE001 - protobuf's own errors, which are no family
        raise CollabError("the cloud's result is no ONNX model") from None
    if with_weights(task.model, _numbers(found)).SerializeToString(deterministic=True) != data:
        raise CollabError("the cloud's result is another network than the one that was agreed on")
    return data


def _numbers(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
