"""A small trained-on-the-spot task for the tests of re-training: which quadrant is bright."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from siniantrust.graph import Cut, Model, enumerate_cuts, load_model
from siniantrust.leakage import Data
from siniantrust.masking import apply_mask

SIDE = 8


def items(count: int = 300, *, seed: int = 0, labelled: bool = True) -> Data:
    """Return images (count, 1, 8, 8) with one brighter quadrant, and its number; a fifth is held out."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    images = rng.normal(size=(count, 1, SIDE, SIDE)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 1.5
    return Data(
        inputs=images,
        labels=labels if labelled else None,
        input_name="x",
        heldout=np.arange(count) >= count * 4 // 5,
    )


def network(*, batch: int | str = "n", softmax: bool = False, seed: int = 0) -> onnx.ModelProto:
    """Return an untrained network: two convolutions, each pooled, the second normalised, and a dense layer."""
    rng = np.random.default_rng(seed)

    def stored(name: str, *shape: int) -> onnx.TensorProto:
        values = rng.normal(size=shape) * (2 / np.prod(shape[1:])) ** 0.5
        return numpy_helper.from_array(values.astype(np.float32), name)

    make = helper.make_node
    moments = {"gain": np.ones(8), "shift": np.zeros(8), "mean": np.zeros(8), "var": np.ones(8)}
    nodes = [
        make("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        make("Relu", ["c1"], ["r1"], "relu1"),
        make("MaxPool", ["r1"], ["p1"], "pool1", kernel_shape=[2, 2], strides=[2, 2]),
        make("Conv", ["p1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        make("BatchNormalization", ["c2", "gain", "shift", "mean", "var"], ["n2"], "norm2"),
        make("Relu", ["n2"], ["r2"], "relu2"),
        make("MaxPool", ["r2"], ["p2"], "pool2", kernel_shape=[2, 2], strides=[2, 2]),
        make("Flatten", ["p2"], ["f"], "flat"),
        make("Gemm", ["f", "w3", "b3"], ["z" if softmax else "y"], "dense", transB=1),
    ]
    if softmax:
        nodes.append(make("Softmax", ["z"], ["y"], "soft", axis=1))
    graph = helper.make_graph(
        nodes,
        "quadrants",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])],
        [
            stored("w1", 6, 1, 3, 3),
            stored("w2", 8, 6, 3, 3),
            stored("w3", 4, 32),
            *(numpy_helper.from_array(np.zeros(size, np.float32), name) for name, size in (("b1", 6), ("b3", 4))),
            *(numpy_helper.from_array(values.astype(np.float32), name) for name, values in moments.items()),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def cut_at(model: Model, *names: str) -> Cut:
    """Return the cut that the named tensors cross."""
    return next(cut for cut in enumerate_cuts(model).cuts if set(cut.tensors) == set(names))


def masked(model: Model, name: str, strength: float, *, at: str = "p1") -> tuple[Model, Cut]:
    """Return ``model`` with a mask at the tensor ``at``, and the cut behind the mask."""
    sample = {at: np.random.default_rng(0).normal(size=(16, *model.tensors[at].shape[1:])).astype(np.float32)}
    proto = apply_mask(model, cut_at(model, at), name, strength=strength, seed=0, sample=sample)
    found = load_model(proto)
    return found, cut_at(found, f"{at}_masked")
