"""The networks that the benchmarks cut: ResNet-50, VGG-16, MobileNetV2, and chains of any length, with random weights.

Batch normalisation is written as exporters leave it: folded into the convolution before it. Weights are scaled so that
activations keep their size from layer to layer, because a run through infinities or denormals would be timed otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

_FLOAT = onnx.TensorProto.FLOAT
_OPSET = 17
_IR_VERSION = 8
_SEED = 0


@dataclass(frozen=True)
class Network:
    """A model, the tensors at which the benchmarks cut it, from input to output, and the side of its input image."""

    name: str
    proto: onnx.ModelProto
    cuts: tuple[str, ...]
    side: int


class _Writer:
    """Appends layers; each method returns the name of the tensor that it makes."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(_SEED)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def op(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Append one operator whose output is called ``name``."""
        self._nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: np.ndarray) -> str:
        """Append an initialiser."""
        self._weights.append(numpy_helper.from_array(values, name))
        return name

    def conv(
        self,
        x: str,
        name: str,
        *,
        channels: tuple[int, int],
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        gain: float,
    ) -> str:
        """Append a convolution (channels in, out) of weights with variance ``gain`` / fan-in (He et al. 2015)."""
        fan_in = channels[0] // groups * kernel * kernel
        shape = (channels[1], channels[0] // groups, kernel, kernel)
        weight = self._rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(gain / fan_in))
        bias = self._rng.normal(0, 0.05, channels[1]).astype(np.float32)
        inputs = [x, self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)]
        pads = [kernel // 2] * 4
        return self.op("Conv", inputs, name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, group=groups)

    def dense(self, x: str, name: str, *, size_in: int, size_out: int) -> str:
        """Append a fully connected layer."""
        weight = self._rng.standard_normal((size_out, size_in), np.float32) / np.float32(np.sqrt(size_in))
        bias = np.zeros(size_out, np.float32)
        inputs = [x, self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)]
        return self.op("Gemm", inputs, name, transB=1)

    def model(self, name: str, *, inputs: list[int], output: str, outputs: list[int]) -> onnx.ModelProto:
        """Return everything as a model with a free batch dimension before the given sizes."""
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info("input", _FLOAT, ["batch", *inputs])],
            [helper.make_tensor_value_info(output, _FLOAT, ["batch", *outputs])],
            self._weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)


def make_resnet50(side: int = 224) -> Network:
    """Build ResNet-50 (He et al. 2016), with the stride of a bottleneck in its 3x3 convolution.

    Cuts: the pool after the stem, the end of each of the four stages, and the middle of the third.
    """
    writer = _Writer()
    x = writer.conv("input", "stem", channels=(3, 64), kernel=7, stride=2, gain=2.0)
    x = writer.op("Relu", [x], "stem.relu")
    x = writer.op("MaxPool", [x], "stem.pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    cuts, channels_in = [x], 64
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
        for block in range(blocks):
            name = f"stage{stage}.block{block}"
            stride = 2 if block == 0 and stage > 1 else 1
            y = writer.conv(x, f"{name}.a", channels=(channels_in, width), kernel=1, gain=2.0)
            y = writer.op("Relu", [y], f"{name}.a.relu")
            y = writer.conv(y, f"{name}.b", channels=(width, width), kernel=3, stride=stride, gain=2.0)
            y = writer.op("Relu", [y], f"{name}.b.relu")
            y = writer.conv(y, f"{name}.c", channels=(width, 4 * width), kernel=1, gain=0.2)
            if block == 0:
                x = writer.conv(
                    x, f"{name}.shortcut", channels=(channels_in, 4 * width), kernel=1, stride=stride, gain=1.0
                )
            x = writer.op("Add", [y, x], f"{name}.add")
            x = writer.op("Relu", [x], f"{name}.relu")
            channels_in = 4 * width
            if (stage, block) == (3, 2):
                cuts.append(x)
        cuts.append(x)
    x = writer.op("GlobalAveragePool", [x], "pool")
    x = writer.op("Flatten", [x], "flat")
    x = writer.dense(x, "logits", size_in=channels_in, size_out=1000)
    return Network(
        "ResNet-50", writer.model("resnet50", inputs=[3, side, side], output=x, outputs=[1000]), tuple(cuts), side
    )


def make_vgg16(side: int = 224) -> Network:
    """Build VGG-16 (Simonyan and Zisserman 2015), configuration D. Cuts: its five pools."""
    writer = _Writer()
    x, cuts, channels_in = "input", [], 3
    for stage, (repeats, width) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), start=1):
        for repeat in range(repeats):
            x = writer.conv(x, f"stage{stage}.conv{repeat}", channels=(channels_in, width), kernel=3, gain=2.0)
            x = writer.op("Relu", [x], f"{x}.relu")
            channels_in = width
        x = writer.op("MaxPool", [x], f"stage{stage}.pool", kernel_shape=[2, 2], strides=[2, 2])
        cuts.append(x)
    x = writer.op("Flatten", [x], "flat")
    size_in = channels_in * (side >> len(cuts)) ** 2
    for number, size_out in enumerate((4096, 4096)):
        x = writer.op(
            "Relu", [writer.dense(x, f"dense{number}", size_in=size_in, size_out=size_out)], f"dense{number}.relu"
        )
        size_in = size_out
    x = writer.dense(x, "logits", size_in=size_in, size_out=1000)
    proto = writer.model("vgg16", inputs=[3, side, side], output=x, outputs=[1000])
    return Network("VGG-16", proto, tuple(cuts), side)


def make_mobilenet_v2(side: int = 224) -> Network:
    """Build MobileNetV2 (Sandler et al. 2018), width 1.

    Cuts: after the first bottleneck, and at the end of each of the next five groups of bottlenecks.
    """
    writer = _Writer()
    low, high = writer.constant("zero", np.array(0, np.float32)), writer.constant("six", np.array(6, np.float32))

    def relu6(x: str) -> str:
        return writer.op("Clip", [x, low, high], f"{x}.relu6")

    x = relu6(writer.conv("input", "stem", channels=(3, 32), kernel=3, stride=2, gain=2.0))
    cuts, channels_in = [], 32
    groups = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for group, (expansion, channels, repeats, first_stride) in enumerate(groups, start=1):
        for repeat in range(repeats):
            name = f"group{group}.block{repeat}"
            stride, wide = first_stride if repeat == 0 else 1, channels_in * expansion
            y = x
            if expansion != 1:
                y = relu6(writer.conv(y, f"{name}.expand", channels=(channels_in, wide), kernel=1, gain=2.0))
            y = writer.conv(
                y, f"{name}.depthwise", channels=(wide, wide), kernel=3, stride=stride, groups=wide, gain=2.0
            )
            y = writer.conv(relu6(y), f"{name}.project", channels=(wide, channels), kernel=1, gain=1.0)
            joined = stride == 1 and channels_in == channels
            x = writer.op("Add", [x, y], f"{name}.add") if joined else y
            channels_in = channels
        cuts.append(x)
    x = relu6(writer.conv(x, "head", channels=(channels_in, 1280), kernel=1, gain=2.0))
    x = writer.op("GlobalAveragePool", [x], "pool")
    x = writer.op("Flatten", [x], "flat")
    x = writer.dense(x, "logits", size_in=1280, size_out=1000)
    proto = writer.model("mobilenet_v2", inputs=[3, side, side], output=x, outputs=[1000])
    return Network("MobileNetV2", proto, tuple(cuts[:-1]), side)


def make_chain(nodes: int) -> onnx.ModelProto:
    """Build a chain of exactly ``nodes`` operators: 1x1 convolutions of four channels, each with its activation."""
    writer = _Writer()
    x = "input"
    for index in range(nodes):
        if index % 2 == 0:
            x = writer.conv(x, f"conv{index}", channels=(4, 4), kernel=1, gain=2.0)
        else:
            x = writer.op("Relu", [x], f"relu{index}")
    return writer.model("chain", inputs=[4, 8, 8], output=x, outputs=[4, 8, 8])


def make_residual(nodes: int) -> onnx.ModelProto:
    """Build a residual network of ``nodes`` operators: blocks of four, and activations where four do not divide it."""
    writer = _Writer()
    x = "input"
    for block in range(nodes // 4):
        y = writer.conv(x, f"block{block}.a", channels=(4, 4), kernel=1, gain=2.0)
        y = writer.op("Relu", [y], f"block{block}.relu")
        y = writer.conv(y, f"block{block}.b", channels=(4, 4), kernel=1, gain=0.01)
        x = writer.op("Add", [x, y], f"block{block}.add")
    for index in range(nodes % 4):
        x = writer.op("Relu", [x], f"tail{index}")
    return writer.model("residual", inputs=[4, 8, 8], output=x, outputs=[4, 8, 8])


NETWORKS: dict[str, Callable[[int], Network]] = {
    "resnet50": make_resnet50,
    "vgg16": make_vgg16,
    "mobilenet_v2": make_mobilenet_v2,
}
