"""Which neighbours a runtime computes as one operator, so that a cut between them only costs."""

from __future__ import annotations

from siniantrust.graph._types import Model

_LINEAR = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
_NORMALISERS = frozenset(("BatchNormalization", "Add"))
_ACTIVATIONS = frozenset(
    (
        *("Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Sigmoid", "HardSigmoid"),
        *("HardSwish", "Swish", "Tanh", "Softplus", "Softsign", "Gelu", "Mish"),
    )
)
_BIASES = frozenset(("Add", "Sub", "Mul"))


def separates_fusable(model: Model, tensor: str) -> bool:
    """Return whether ``tensor`` has one reader, and a runtime fuses that into the operator that makes the tensor.

    Fused are an activation behind a convolution, a matrix product, a normalisation or a sum; and a normalisation, or a
    sum or product with a constant, behind a convolution or a matrix product.
    """
    readers = model.consumers.get(tensor, ())
    if tensor not in model.producers or len(readers) != 1 or any(output.name == tensor for output in model.outputs):
        return False
    maker, reader = model.nodes[model.producers[tensor]], model.nodes[readers[0]]
    if maker.op_type in _LINEAR | _NORMALISERS and reader.op_type in _ACTIVATIONS:
        return True
    if maker.op_type not in _LINEAR:
        return False
    if reader.op_type == "BatchNormalization":
        return True
    known = {value.name for value in model.inputs}
    others = [name for name in reader.inputs if name != tensor]
    return reader.op_type in _BIASES and all(name not in model.producers and name not in known for name in others)
