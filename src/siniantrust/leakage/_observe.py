"""Running a model while watching the values inside it, item by item or in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import numpy as np
import onnx
from onnx import helper

from siniantrust.graph import Model, Part, Tensor
from siniantrust.odla import DeviceSpec, open_device

_BATCH_BYTES = 128 << 20
_MAX_BATCH = 64


def item_shape(model: Model, name: str) -> tuple[int, ...]:
    """Return the shape of one item of the model's input ``name``: without the batch axis."""
    tensor = next(tensor for tensor in model.inputs if tensor.name == name)
    return tensor.shape[1:] if _has_item_axis(model, tensor) else tensor.shape


def _has_item_axis(model: Model, tensor: Tensor) -> bool:
    """Whether the first axis counts items: it is the batch, or a fixed batch of one."""
    return tensor.batch_axis == 0 or (model.batch_symbol is None and bool(tensor.shape) and tensor.shape[0] == 1)


class Observer:
    """A model whose inner values ``watched`` come out beside its outputs.

    A context manager. ``run`` takes and returns arrays whose first axis counts items, whatever the model's batch is.
    """

    def __init__(self, model: Model, watched: Sequence[str], *, threads: int) -> None:
        self._model = model
        self.output_names = tuple(tensor.name for tensor in model.outputs)
        inputs = {tensor.name for tensor in model.inputs}
        # A cut may let an input of the model pass as it is.
        self._passed = [name for name in dict.fromkeys(watched) if name in inputs]
        known = {*self.output_names, *inputs}
        extra = [name for name in dict.fromkeys(watched) if name not in known]
        part = _watched_part(model, extra)
        self._tensors = {tensor.name: tensor for tensor in part.outputs}
        self._device = open_device(DeviceSpec(name="audit", options={"threads": threads, "spinning": False}))
        self._executable = self._device.compile(part)
        per_item = sum(tensor.size_bytes for tensor in part.outputs) or 1
        self.batch_items = 1 if model.batch_symbol is None else max(1, min(_MAX_BATCH, _BATCH_BYTES // per_item))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executable.close()
        self._device.close()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return every output and watched value for all items of ``inputs``, each (items, *item shape)."""
        count = len(next(iter(inputs.values())))
        pieces: dict[str, list[np.ndarray]] = {name: [] for name in self._tensors}
        for start in range(0, count, self.batch_items):
            batch = {name: array[start : start + self.batch_items] for name, array in inputs.items()}
            size = len(next(iter(batch.values())))
            for name, value in self._executable.run(self._to_model(batch)).items():
                pieces[name].append(self._to_items(self._tensors[name], value, size))
        values = {name: np.concatenate(parts) for name, parts in pieces.items()}
        return values | {name: inputs[name] for name in self._passed}

    def _to_model(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Give a fixed-batch model its one item with the axis it expects."""
        if self._model.batch_symbol is not None:
            return {name: np.ascontiguousarray(array) for name, array in batch.items()}
        shapes = {tensor.name: tensor.shape for tensor in self._model.inputs}
        return {name: np.ascontiguousarray(array).reshape(shapes[name]) for name, array in batch.items()}

    def _to_items(self, tensor: Tensor, value: np.ndarray, items: int) -> np.ndarray:
        """Move the items to the first axis; a batch axis that is a multiple of the batch keeps the rest as an axis."""
        if self._model.batch_symbol is None:
            has_axis = _has_item_axis(self._model, tensor)
            return value if has_axis else value[None]
        if tensor.batch_axis is None:
            return np.broadcast_to(value, (items, *value.shape))
        moved = np.moveaxis(value, tensor.batch_axis, 0)
        if len(moved) == items:
            return moved
        return moved.reshape(items, len(moved) // items, *moved.shape[1:])


def _watched_part(model: Model, extra: Sequence[str]) -> Part:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    kept = [value for value in proto.graph.value_info if value.name not in set(extra)]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    tensors = [model.tensors[name] for name in extra]
    for tensor in tensors:
        dims: list[int | str | None] = list(tensor.shape)
        if tensor.batch_axis is not None:
            # A multiple of the batch has no symbol of its own.
            dims[tensor.batch_axis] = model.batch_symbol if tensor.shape[tensor.batch_axis] == 1 else None
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
        proto.graph.output.append(helper.make_tensor_value_info(tensor.name, kind, dims))
    return Part(
        name=model.name,
        proto=proto,
        inputs=model.inputs,
        outputs=(*model.outputs, *tensors),
        node_names=tuple(node.name for node in model.nodes),
        batch_symbol=model.batch_symbol,
    )
