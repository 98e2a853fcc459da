"""Costs: FLOPs by hand, parameters and bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_models import model_of, residual
from onnx import TensorProto, helper

from siniantrust.graph import Node, load_model

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


def only_node(
    op: str,
    inputs: Mapping[str, list[int]],
    output: list[int],
    constants: Mapping[str, tuple[int, ...]] | None = None,
    attributes: Mapping[str, object] | None = None,
) -> Node:
    """Load a model of one node, with inputs in the given order and weights of the given shapes; return the node."""
    weights = {name: np.zeros(shape, np.float32) for name, shape in (constants or {}).items()}
    node = helper.make_node(op, [*inputs, *weights], ["y"])
    node.attribute.extend(helper.make_attribute(key, value) for key, value in (attributes or {}).items())
    (loaded,) = load_model(model_of([node], inputs, {"y": output}, weights)).nodes
    return loaded


@pytest.mark.parametrize(
    ("node", "flops"),
    [
        # 2 x outputs x (channels in per group x kernel), and the bias
        (only_node("Conv", {"x": [1, 3, 8, 8]}, [1, 4, 6, 6], {"w": (4, 3, 3, 3)}), 2 * 144 * 27),
        (only_node("Conv", {"x": [1, 3, 8, 8]}, [1, 4, 6, 6], {"w": (4, 3, 3, 3), "b": (4,)}), 144 * 55),
        (only_node("Conv", {"x": [1, 4, 8, 8]}, [1, 4, 6, 6], {"w": (4, 1, 3, 3)}, {"group": 4}), 2 * 144 * 9),
        (only_node("ConvTranspose", {"x": [1, 3, 4, 4]}, [1, 5, 6, 6], {"w": (3, 5, 3, 3)}), 2 * 48 * 45),
        (only_node("Gemm", {"x": [2, 3]}, [2, 5], {"w": (3, 5), "b": (5,)}), 10 * 7),
        (only_node("Gemm", {"x": [3, 2]}, [2, 5], {"w": (5, 3)}, {"transA": 1, "transB": 1}), 10 * 6),
        (only_node("MatMul", {"a": [2, 7, 3], "b": [2, 3, 5]}, [2, 7, 5]), 2 * 70 * 3),
        (only_node("MaxPool", {"x": [1, 2, 4, 4]}, [1, 2, 2, 2], attributes={"kernel_shape": [3, 3]}), 8 * 9),
        (only_node("GlobalAveragePool", {"x": [1, 2, 4, 4]}, [1, 2, 1, 1]), 32),
        (only_node("BatchNormalization", {"x": [1, 2, 4, 4]}, [1, 2, 4, 4], dict.fromkeys("gbmv", (2,))), 64),
        (only_node("LayerNormalization", {"x": [1, 4]}, [1, 4], {"g": (4,)}), 32),
        (only_node("LRN", {"x": [1, 2, 4, 4]}, [1, 2, 4, 4], attributes={"size": 5}), 32 * 13),
        (only_node("Softmax", {"x": [1, 10]}, [1, 10]), 50),
        (only_node("Relu", {"x": [1, 10]}, [1, 10]), 10),
        (only_node("Add", {"a": [1, 10], "b": [1, 10]}, [1, 10]), 10),
        (only_node("ReduceMean", {"x": [1, 10]}, [1, 1]), 10),
        (only_node("Transpose", {"x": [1, 10]}, [10, 1]), 0),
        (
            only_node("Einsum", {"a": [2, 3, 4], "b": [2, 4, 5]}, [2, 3, 5], attributes={"equation": "bij,bjk->bik"}),
            240,
        ),
        (only_node("Einsum", {"a": [2, 3, 4], "b": [4, 5]}, [2, 3, 5], attributes={"equation": "...j,jk->...k"}), 240),
        (
            only_node("LSTM", {"x": [5, 1, 3]}, [5, 1, 1, 2], {"w": (1, 8, 3), "r": (1, 8, 2)}, {"hidden_size": 2}),
            5 * (2 * (24 + 16) + 80),
        ),
    ],
    ids=lambda value: value.op_type if isinstance(value, Node) else str(value),
)
def test_flops_are_those_of_the_definition(node: Node, flops: int) -> None:
    """Each kind of operator costs what counting its definition by hand gives."""
    assert node.flops == flops


def test_parameters_and_bytes_are_those_of_what_is_read_and_made() -> None:
    """Parameters count the weights that a node reads, activations what it makes."""
    node = only_node("Conv", {"x": [1, 3, 8, 8]}, [1, 4, 6, 6], {"w": (4, 3, 3, 3), "b": (4,)})
    assert (node.parameters, node.parameter_bytes, node.activation_bytes) == (112, 448, 576)


@pytest.mark.parametrize(
    ("name", "gigaflops"), [("resnet50", 8.2), ("vgg19", 39.3), ("squeezenet", 0.71), ("densenet121", 5.75)]
)
def test_known_networks_cost_what_is_published(name: str, gigaflops: float) -> None:
    """ResNet-50 takes 4.1 G multiply-accumulates, VGG-19 19.6, SqueezeNet 1.0 0.35, DenseNet-121 2.87."""
    assert load_model(LIGHT / f"light_{name}.onnx").flops == pytest.approx(gigaflops * 1e9, rel=0.02)


def test_figures_are_for_one_item_of_the_batch() -> None:
    """The free batch counts as one."""
    free, fixed = load_model(residual(1)), load_model(residual(1), dims={"N": 1})
    assert [node.flops for node in free.nodes] == [node.flops for node in fixed.nodes]
    assert [node.activation_bytes for node in free.nodes] == [node.activation_bytes for node in fixed.nodes]


def test_unknown_operators_count_one_per_output_element() -> None:
    """A foreign operator whose output type is declared costs as an elementwise one."""
    nodes = [helper.make_node("Foreign", ["x"], ["a"], domain="d"), helper.make_node("Relu", ["a"], ["y"])]
    declared = helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 6])
    proto = model_of(nodes, {"x": [1, 2]}, {"y": [1, 6]}, value_info=[declared])
    proto.opset_import.append(helper.make_opsetid("d", 1))
    assert load_model(proto).nodes[0].flops == 6
