"""Random operators: fresh noise from torch's generator on every run, whatever ``seed`` says."""

from __future__ import annotations

import torch
from onnx import TensorProto

from siniantrust.odla.torch_graph._table import Call, operator
from siniantrust.odla.torch_graph._types import DTYPES, is_known_type

_DTYPE = {"dtype": is_known_type}


@operator("RandomNormal", attributes="mean scale seed shape", only=_DTYPE)
def random_normal(call: Call) -> torch.Tensor:
    """Draw from a normal distribution."""
    noise = torch.randn(call.get("shape"), dtype=DTYPES[call.get("dtype", TensorProto.FLOAT)])
    return noise.mul(call.get("scale", 1.0)).add(call.get("mean", 0.0))


@operator("RandomNormalLike", attributes="mean scale seed", only=_DTYPE)
def random_normal_like(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Draw from a normal distribution in the shape of ``values``."""
    noise = torch.randn_like(values, dtype=DTYPES.get(call.get("dtype"), values.dtype))
    return noise.mul(call.get("scale", 1.0)).add(call.get("mean", 0.0))


@operator("RandomUniform", attributes="high low seed shape", only=_DTYPE)
def random_uniform(call: Call) -> torch.Tensor:
    """Draw evenly between two bounds."""
    noise = torch.rand(call.get("shape"), dtype=DTYPES[call.get("dtype", TensorProto.FLOAT)])
    return noise.mul(call.get("high", 1.0) - call.get("low", 0.0)).add(call.get("low", 0.0))


@operator("RandomUniformLike", attributes="high low seed", only=_DTYPE)
def random_uniform_like(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Draw evenly between two bounds, in the shape of ``values``."""
    noise = torch.rand_like(values, dtype=DTYPES.get(call.get("dtype"), values.dtype))
    return noise.mul(call.get("high", 1.0) - call.get("low", 0.0)).add(call.get("low", 0.0))
