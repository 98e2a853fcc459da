"""Removing channels of spaces from a model, wherever they are stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from siniantrust.graph import Cut, Model
from siniantrust.masking.restructure._channels import Slice, Space
from siniantrust.masking.restructure._editor import Editor, set_attribute


def remove_channels(model: Model, cut: Cut, kept: Sequence[tuple[Space, np.ndarray]]) -> onnx.ModelProto:
    """Return ``model`` with only the channels ``kept``, ascending, of each of some of its spaces."""
    editor = Editor(model, cut)
    nodes = {node.name: node for node in editor.proto.graph.node}
    for space, channels in kept:
        for each in (*space.made, *space.read):
            editor.change(each.stored, np.take(editor.weights(each.stored), _places(each, channels), axis=each.axis))
        for index in space.reshapes:
            # The stored target may hold the number of places that there were; to flatten, it needs none.
            node = nodes[model.nodes[index].name]
            node.input[1] = editor.add(f"{node.output[0]}_flat", np.array([0, -1], np.int64))
        for index in space.depthwise:
            set_attribute(nodes[model.nodes[index].name], "group", len(channels))
    return editor.finish()


def spread(values: np.ndarray, where: Slice) -> np.ndarray:
    """Return the sum of ``values``, of a stored tensor's shape, over all that belongs to one channel: (channels,)."""
    moved = np.moveaxis(values, where.axis, 0).reshape(values.shape[where.axis] // where.run, -1)
    found: np.ndarray = moved.sum(axis=1)
    return found


def _places(where: Slice, channels: np.ndarray) -> np.ndarray:
    places: np.ndarray = (channels[:, None] * where.run + np.arange(where.run)).reshape(-1)
    return places
