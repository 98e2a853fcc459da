from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from leakage_cases import write_network
from onnx import TensorProto, helper, numpy_helper

from siniantrust.graph import Model, load_model
from siniantrust.leakage._observe import Observer, item_shape


def _shuffling(folder: Path, batch: int | None) -> Model:
    """Return a network that moves its batch to the second axis, and one that merges it with another axis."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["moved"], name="moved", perm=[1, 0, 2]),
        helper.make_node("Neg", ["moved"], ["negative"], name="negative"),
        helper.make_node("Transpose", ["negative"], ["back"], name="back", perm=[1, 0, 2]),
        helper.make_node("Reshape", ["back", "halves"], ["merged"], name="merged"),
        helper.make_node("Relu", ["merged"], ["positive"], name="positive"),
        helper.make_node("Reshape", ["positive", "whole"], ["y"], name="y"),
    ]
    first: int | str = "n" if batch is None else batch
    graph = helper.make_graph(
        nodes,
        "shuffling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [first, 4, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [first, 4, 6])],
        [
            numpy_helper.from_array(np.array([-1, 12], dtype=np.int64), "halves"),
            numpy_helper.from_array(np.array([-1, 4, 6], dtype=np.int64), "whole"),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return load_model(write_network(folder / "model.onnx", proto))


@pytest.mark.parametrize("batch", [None, 1])
def test_items_come_first_wherever_the_batch_is(tmp_path: Path, batch: int | None) -> None:
    """Values whose batch is on another axis, or merged with one, come out one row per item, in order."""
    model = _shuffling(tmp_path, batch)
    items = np.random.default_rng(0).normal(size=(150, 4, 6)).astype(np.float32)
    with Observer(model, ["x", "negative", "positive"], threads=1) as observer:
        found = observer.run({"x": items})
    assert item_shape(model, "x") == (4, 6)
    np.testing.assert_array_equal(found["x"], items)
    np.testing.assert_array_equal(found["negative"].reshape(150, -1), -items.reshape(150, -1))
    np.testing.assert_array_equal(found["positive"].reshape(150, -1), np.maximum(-items, 0).reshape(150, -1))
    np.testing.assert_array_equal(found["y"], np.maximum(-items, 0))


def test_only_the_watched_values_come_out(tmp_path: Path) -> None:
    """A run gives the model's outputs and the watched values, nothing else."""
    model = _shuffling(tmp_path, None)
    with Observer(model, ["negative"], threads=1) as observer:
        assert set(observer.run({"x": np.zeros((3, 4, 6), dtype=np.float32)})) == {"negative", "y"}
