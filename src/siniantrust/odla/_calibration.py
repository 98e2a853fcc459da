"""Small parts that any device can be measured with: one that only moves data, one that computes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from siniantrust.graph import Part, Tensor

LINK = "siniantrust-link"
"""Name of the part that moves data: ``every`` is what came in, ``first`` the first element of each row."""

COMPUTE = "siniantrust-compute"
"""Name of the part that computes: two convolutions and a matrix product, some 190 million operations."""

ROW_BYTES = 4096
_WIDTH = ROW_BYTES // 4
_OPSET, _IR_VERSION = 17, 8


def link_part(*outputs: str) -> Part:
    """Return the part that moves rows of ``ROW_BYTES`` in, and out what ``outputs`` names (both if none is named)."""
    wanted = outputs or ("every", "first")
    bounds = [numpy_helper.from_array(np.array([value]), name) for name, value in (("from", 0), ("to", 1), ("axis", 1))]
    nodes = {
        "every": helper.make_node("Identity", ["x"], ["every"], name="every"),
        "first": helper.make_node("Slice", ["x", "from", "to", "axis"], ["first"], name="first"),
    }
    widths = {"every": _WIDTH, "first": 1}
    return _part(
        LINK,
        [nodes[name] for name in wanted],
        bounds if "first" in wanted else [],
        inputs={"x": (1, _WIDTH)},
        outputs={name: (1, widths[name]) for name in wanted},
    )


def compute_part() -> Part:
    """Return the part that computes, the same wherever and whenever it is made."""
    generator = np.random.default_rng(0)
    shapes = {"w0": (32, 3, 3, 3), "w1": (32, 32, 3, 3), "w2": (256, 32)}
    weights = [
        numpy_helper.from_array(
            (generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32), name
        )
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"], name="c0", kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["c0"], ["r0"], name="r0"),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], name="c1", kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], name="r1"),
        helper.make_node("GlobalAveragePool", ["r1"], ["pool"], name="pool"),
        helper.make_node("Flatten", ["pool"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "w2"], ["y"], name="y", transB=1),
    ]
    return _part(COMPUTE, nodes, weights, inputs={"x": (1, 3, 96, 96)}, outputs={"y": (1, 256)})


def _part(
    name: str,
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    *,
    inputs: dict[str, tuple[int, ...]],
    outputs: dict[str, tuple[int, ...]],
) -> Part:
    def ports(shapes: dict[str, tuple[int, ...]]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(port, onnx.TensorProto.FLOAT, ["batch", *shape[1:]])
            for port, shape in shapes.items()
        ]

    graph = helper.make_graph(nodes, name, ports(inputs), ports(outputs), constants)
    return Part(
        name=name,
        proto=helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION),
        inputs=tuple(Tensor(port, "float32", shape, 0) for port, shape in inputs.items()),
        outputs=tuple(Tensor(port, "float32", shape, 0) for port, shape in outputs.items()),
        node_names=tuple(node.name for node in nodes),
        batch_symbol="batch",
    )
