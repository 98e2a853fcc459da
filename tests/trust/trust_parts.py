"""What the tests of the trust room share: how to build a small part, and the types of their fixtures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from siniantrust.graph import Part, Tensor
from siniantrust.trust import Enclave

Info = tuple[str, int, list[int | str]]
MakePart = Callable[..., Part]
Launch = Callable[..., Enclave]
LoadPart = Callable[[Enclave, str, Part], bytes]

CONTEXT = b"tests of the trust room"


def build_part(
    nodes: list[onnx.NodeProto],
    inputs: list[Info],
    outputs: list[Info],
    weights: dict[str, np.ndarray] | None = None,
) -> Part:
    """Return a part of these nodes, checked by ONNX."""
    graph = helper.make_graph(
        nodes,
        "part",
        [helper.make_tensor_value_info(*entry) for entry in inputs],
        [helper.make_tensor_value_info(*entry) for entry in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto)
    as_tensors = [tuple(Tensor(name, "float32", (1,)) for name, _, _ in entries) for entries in (inputs, outputs)]
    return Part("part", proto, as_tensors[0], as_tensors[1], tuple(node.name for node in nodes), None)
