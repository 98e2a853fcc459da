"""What a node costs for one batch item: floating-point operations by operator, parameters and bytes.

A multiply-accumulate counts as two, a comparison or a transcendental function's polynomial step as one. Operators that
only move data cost no FLOPs. The figures follow from the operators' definitions in the ONNX specification.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx
from onnx import helper

from siniantrust.graph._infer import Value
from siniantrust.graph._uses import makes, subgraphs

_PER_OUTPUT = {
    **dict.fromkeys(("Sigmoid", "Tanh", "Softplus", "Softsign", "HardSwish", "Elu", "Selu", "Celu", "Swish"), 4),
    **dict.fromkeys(("HardSigmoid", "LeakyRelu", "PRelu", "Clip", "BatchNormalization", "ThresholdedRelu"), 2),
    **dict.fromkeys(("Gelu", "FastGelu", "QuickGelu", "BiasGelu", "Mish"), 8),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"), 3),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), 5),
    **dict.fromkeys(("LayerNormalization", "GroupNormalization", "InstanceNormalization", "SkipLayerNormalization"), 8),
    **dict.fromkeys(("RMSNormalization", "SimplifiedLayerNormalization", "LpNormalization"), 5),
    "MeanVarianceNormalization": 7,
    "GridSample": 8,
}
_PER_INPUT = frozenset(
    (
        *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum"),
        *("ReduceLogSumExp", "ReduceSumSquare", "ArgMax", "ArgMin", "TopK", "CumSum", "CumProd"),
        *("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "NonMaxSuppression"),
    )
)
_FREE = frozenset(
    (
        *("Reshape", "Transpose", "Concat", "Slice", "Split", "Gather", "GatherElements", "GatherND", "Pad", "Cast"),
        *("CastLike", "Identity", "Dropout", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile", "Shape", "Size"),
        *("Constant", "ConstantOfShape", "DepthToSpace", "SpaceToDepth", "ReverseSequence", "EyeLike", "NonZero"),
        *("ScatterElements", "ScatterND", "Scatter", "Compress", "OneHot", "MaxUnpool", "Trilu", "Col2Im", "Unique"),
        *("BitCast", "Optional", "OptionalGetElement", "OptionalHasElement", "SequenceConstruct", "SequenceAt"),
    )
)
# Position of the weights among the inputs of the convolutions and the matrix products.
_CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "NhwcConv": 1, "ConvInteger": 1, "QLinearConv": 3, "DeformConv": 1}
_PRODUCTS = ("MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul", "DynamicQuantizeMatMul")


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost fields of a ``Node``."""

    flops: int
    parameters: int
    parameter_bytes: int
    activation_bytes: int


@dataclass(frozen=True)
class _Context:
    """A node with the shapes around it."""

    node: onnx.NodeProto
    values: Mapping[str, Value]

    def shape(self, name: str) -> tuple[int, ...] | None:
        value = self.values.get(name)
        if value is None or None in value.dims:
            return None
        return tuple(size for size in value.dims if size is not None)

    def input(self, index: int) -> tuple[int, ...]:
        """Shape of an input; a scalar's when it is omitted or unknown, so that its product counts as one."""
        return (self.shape(self.node.input[index]) or ()) if self.has(index) else ()

    def has(self, index: int) -> bool:
        return index < len(self.node.input) and bool(self.node.input[index])

    @property
    def output_elements(self) -> int:
        """Elements of the first output of known shape; 0 when none is known."""
        shapes = (self.shape(name) for name in makes(self.node))
        return next((math.prod(shape) for shape in shapes if shape is not None), 0)

    def attribute(self, name: str, default: object) -> object:
        found = next((each for each in self.node.attribute if each.name == name), None)
        return default if found is None else helper.get_attribute_value(found)

    def integers(self, name: str) -> tuple[int, ...]:
        """Value of an integer attribute, as a tuple even when it is single; empty when absent."""
        found = next((each for each in self.node.attribute if each.name == name), None)
        return () if found is None else tuple(found.ints) or (found.i,)


def cost(node: onnx.NodeProto, values: Mapping[str, Value], constants: Mapping[str, tuple[int, int]]) -> Cost:
    """Return what ``node`` costs; values of unknown shape count as nothing.

    Args:
        node: the operator.
        values: types of all values for one batch item.
        constants: elements and bytes of each initialiser.
    """
    read = [constants[name] for name in dict.fromkeys(node.input) if name in constants]
    produced = 0
    for name in makes(node):
        value = values.get(name)
        if value is not None and None not in value.dims:
            itemsize = int(helper.tensor_dtype_to_np_dtype(value.elem_type).itemsize)
            produced += math.prod(size for size in value.dims if size is not None) * itemsize
    return Cost(
        flops=_flops(node, values),
        parameters=sum(elements for elements, _ in read),
        parameter_bytes=sum(size_bytes for _, size_bytes in read),
        activation_bytes=produced,
    )


def _flops(node: onnx.NodeProto, values: Mapping[str, Value]) -> int:
    context = _Context(node, values)
    if node.op_type in _FREE:
        return 0
    if node.op_type in _PER_INPUT:
        return math.prod(context.input(0)) if context.input(0) else 0
    if node.op_type in _PER_OUTPUT:
        return _PER_OUTPUT[node.op_type] * context.output_elements
    rule = _RULES.get(node.op_type)
    # Everything else is element by element: one operation each.
    return rule(context) if rule is not None else context.output_elements


def _convolution(context: _Context) -> int:
    weights = context.input(_CONVOLUTIONS[context.node.op_type])
    bias = context.output_elements if context.has(8 if context.node.op_type == "QLinearConv" else 2) else 0
    return 2 * context.output_elements * math.prod(weights[1:]) + bias


def _transposed_convolution(context: _Context) -> int:
    bias = context.output_elements if context.has(2) else 0
    return 2 * math.prod(context.input(0)) * math.prod(context.input(1)[1:]) + bias


def _gemm(context: _Context) -> int:
    a = context.input(0)
    inner = (a[0] if context.attribute("transA", 0) else a[-1]) if a else 0
    return context.output_elements * (2 * inner + (1 if context.has(2) else 0))


def _product(context: _Context) -> int:
    a = context.input(0)
    inner = a[-1] if a else 0
    return 2 * context.output_elements * inner


def _pool(context: _Context) -> int:
    return context.output_elements * math.prod(context.integers("kernel_shape"))


def _local_response(context: _Context) -> int:
    return context.output_elements * (2 * sum(context.integers("size")) + 3)


def _recurrent(context: _Context) -> int:
    """LSTM, GRU, RNN: two matrix products per step and direction, and some ten operations per hidden unit and gate."""
    x, w, r = context.input(0), context.input(1), context.input(2)
    if not (x and w and r):
        return 0
    steps = x[0] * x[1]  # sequence and batch, in either layout
    return steps * (2 * (math.prod(w) + math.prod(r)) + 10 * w[0] * w[1])


def _einsum(context: _Context) -> int:
    """Count one multiply-accumulate per point of the space that all index letters span (naive evaluation)."""
    raw = context.attribute("equation", b"")
    terms = (raw.decode() if isinstance(raw, bytes) else "").replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        shape = context.input(index)
        head, dots, tail = term.partition("...")
        if dots:
            inner = shape[len(head) : len(shape) - len(tail)]
            sizes["..."] = max(sizes.get("...", 1), math.prod(inner))
        sizes.update(zip(head, shape, strict=False))
        sizes.update(zip(reversed(tail), reversed(shape), strict=False))
    return math.prod(sizes.values()) * (2 if len(terms) > 1 else 1) if sizes else 0


def _attention(context: _Context) -> int:
    """Scores and weighted sum over (batch, heads, queries, keys, head size); hidden sizes merged or not."""
    q, k = context.input(0), context.input(1)
    if not q or not k:
        return 0
    return 4 * math.prod(q) * k[-2]


def _resize(context: _Context) -> int:
    if context.attribute("mode", b"nearest") == b"nearest":
        return 0
    spatial = max(len(context.input(0)) - 2, 1)
    return context.output_elements << (spatial + 1)


def _control_flow(context: _Context) -> int:
    """If: its dearest branch. Loop and Scan: one iteration, since the number is known at run time only."""
    branches = [sum(_flops(node, context.values) for node in graph.node) for graph in subgraphs(context.node)]
    return max(branches, default=0)


_RULES: Mapping[str, Callable[[_Context], int]] = {
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    **dict.fromkeys(_PRODUCTS, _product),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), _pool),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    **dict.fromkeys(("If", "Loop", "Scan"), _control_flow),
    "ConvTranspose": _transposed_convolution,
    "Gemm": _gemm,
    "FusedGemm": _gemm,
    "LRN": _local_response,
    "Einsum": _einsum,
    "Attention": _attention,
}
