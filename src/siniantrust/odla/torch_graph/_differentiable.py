"""Which stored tensors of a graph can be trained: those that a gradient reaches and that are no settings."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto

from siniantrust.errors import DeviceError

_FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
# Operators whose answers are places, truths, sizes or fresh noise.
_NO_GRADIENT = frozenset(
    (
        "And",
        "ArgMax",
        "ArgMin",
        "ConstantOfShape",
        "Equal",
        "EyeLike",
        "Greater",
        "GreaterOrEqual",
        "IsInf",
        "IsNaN",
        "Less",
        "LessOrEqual",
        "NonZero",
        "Not",
        "OneHot",
        "Or",
        "RandomNormalLike",
        "RandomUniformLike",
        "Shape",
        "Size",
        "Xor",
    )
)
# Inputs that say how an operator works, by their place; the others are what it works on.
_SETTINGS = {
    "Clip": (1, 2),
    "DequantizeLinear": (1, 2),
    "Dropout": (1, 2),
    "Pad": (1, 2, 3),
    "QuantizeLinear": (1, 2),
    "Range": (0, 1, 2),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
}


def differentiable_weights(proto: onnx.ModelProto, outputs: Sequence[str]) -> frozenset[str]:
    """Return the stored floating tensors that training can change.

    Left out are numbers of rank zero, which exporters make of constants in formulas (the 2 in a square, an epsilon),
    and inputs that are settings of their operator: bounds of Clip, scales of Resize and of quantisation, a fill of
    Pad, a ratio of Dropout.

    Raises:
        DeviceError: if there are none; the operators that no gradient passes are named.
    """
    makers = {name: node for node in proto.graph.node for name in node.output if name}
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    reached: set[str] = set()
    blocked: dict[str, str] = {}
    open_names = list(outputs)
    while open_names:
        name = open_names.pop()
        if name in reached:
            continue
        reached.add(name)
        node = makers.get(name)
        if node is None:
            continue
        if node.op_type in _NO_GRADIENT or _makes_integers(node):
            blocked[node.name] = node.op_type
            continue
        settings = _SETTINGS.get(node.op_type, ())
        open_names += [source for place, source in enumerate(node.input) if source and place not in settings]
    found = frozenset(
        name for name in reached & stored.keys() if stored[name].data_type in _FLOATS and stored[name].dims
    )
    if not found:
        listed = ", ".join(f"node '{name}' ({op_type})" for name, op_type in sorted(blocked.items()))
        reason = (
            f"no gradient passes {listed}; use the model without it" if blocked else "it stores no floating numbers"
        )
        raise DeviceError(f"the model cannot be trained: {reason}")
    return found


def _makes_integers(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and not any(each.name == "to" and each.i in _FLOATS for each in node.attribute)
