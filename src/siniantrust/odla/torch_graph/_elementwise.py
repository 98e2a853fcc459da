"""Operators that work number by number."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch.nn import functional

from siniantrust.odla.torch_graph._table import Call, one_of, operator
from siniantrust.odla.torch_graph._types import DTYPES, is_known_type

_SIMPLE: dict[str, Callable[..., torch.Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "And": torch.logical_and,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "HardSwish": functional.hardswish,
    "IsNaN": torch.isnan,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "Mish": functional.mish,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": functional.softplus,
    "Softsign": functional.softsign,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Add": torch.add,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
    "Where": torch.where,
    "Xor": torch.logical_xor,
}


def _simple(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def run(_: Call, *inputs: torch.Tensor) -> torch.Tensor:
        return function(*inputs)

    return run


for _name, _function in _SIMPLE.items():
    operator(_name)(_simple(_function))


@operator("Div")
def divide(_: Call, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Divide; integers are truncated towards zero."""
    rounding = None if first.is_floating_point() else "trunc"
    return torch.div(first, second, rounding_mode=rounding)


@operator("Pow")
def power(_: Call, base: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    """Raise to a power, in the base's type."""
    return torch.pow(base, exponent).to(base.dtype)


@operator("Mod", attributes="fmod")
def modulo(call: Call, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the remainder, with the divisor's sign, or the dividend's if ``fmod``."""
    return torch.fmod(first, second) if call.get("fmod", 0) else torch.remainder(first, second)


@operator("Max")
def maximum(_: Call, *inputs: torch.Tensor) -> torch.Tensor:
    """Return the largest of several tensors, place by place."""
    return reduce(torch.maximum, inputs)


@operator("Min")
def minimum(_: Call, *inputs: torch.Tensor) -> torch.Tensor:
    """Return the smallest of several tensors, place by place."""
    return reduce(torch.minimum, inputs)


@operator("Sum")
def total(_: Call, *inputs: torch.Tensor) -> torch.Tensor:
    """Add several tensors."""
    return reduce(torch.add, inputs)


@operator("Mean")
def mean(_: Call, *inputs: torch.Tensor) -> torch.Tensor:
    """Average several tensors."""
    return reduce(torch.add, inputs) / len(inputs)


@operator("LeakyRelu", attributes="alpha")
def leaky_relu(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Scale negative values by ``alpha``."""
    return functional.leaky_relu(values, call.get("alpha", 0.01))


@operator("PRelu")
def prelu(_: Call, values: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """Scale negative values by a slope that broadcasts to them."""
    return torch.where(values > 0, values, values * slope)


@operator("ThresholdedRelu", attributes="alpha")
def thresholded_relu(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Keep what is above ``alpha``."""
    return functional.threshold(values, call.get("alpha", 1.0), 0.0)


@operator("Elu", attributes="alpha")
def elu(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Exponential linear unit."""
    return functional.elu(values, call.get("alpha", 1.0))


@operator("Celu", attributes="alpha")
def celu(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Continuously differentiable exponential linear unit."""
    return functional.celu(values, call.get("alpha", 1.0))


@operator("Selu", attributes="alpha gamma")
def selu(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Scaled exponential linear unit."""
    alpha, gamma = call.get("alpha", 1.67326319217681884765625), call.get("gamma", 1.05070102214813232421875)
    return functional.elu(values, alpha).mul(gamma)


@operator("HardSigmoid", attributes="alpha beta")
def hard_sigmoid(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Clip a line to 0..1."""
    return values.mul(call.get("alpha", 0.2)).add(call.get("beta", 0.5)).clamp(0, 1)


@operator("Swish", attributes="alpha")
def swish(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Multiply by the sigmoid."""
    return values * torch.sigmoid(values * call.get("alpha", 1.0))


@operator("Gelu", only={"approximate": one_of("none", "tanh")})
def gelu(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Gaussian error linear unit."""
    return functional.gelu(values, approximate=call.get("approximate", "none"))


@operator("Clip", attributes="min max")
def clip(
    call: Call, values: torch.Tensor, low: torch.Tensor | None = None, high: torch.Tensor | None = None
) -> torch.Tensor:
    """Clip to bounds that are attributes (before opset 11) or inputs."""
    lower: Any = call.get("min") if low is None else low
    upper: Any = call.get("max") if high is None else high
    if lower is not None:
        values = values.clamp(min=lower)
    return values if upper is None else values.clamp(max=upper)


@operator("IsInf", attributes="detect_negative detect_positive")
def is_infinite(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Say where a value is infinite."""
    above = torch.isposinf(values) & bool(call.get("detect_positive", 1))
    return above | torch.isneginf(values) & bool(call.get("detect_negative", 1))


@operator("Cast", attributes="saturate round_mode", only={"to": is_known_type})
def cast(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Convert to another element type; to integers no gradient passes."""
    return values.to(DTYPES[call.get("to")])


@operator("CastLike", attributes="saturate round_mode")
def cast_like(_: Call, values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Convert to the element type of another tensor."""
    return values.to(like.dtype)


@operator("Identity")
def identity(_: Call, values: torch.Tensor) -> torch.Tensor:
    """Return what is given."""
    return values


def train_dropout(
    call: Call, values: torch.Tensor, ratio: torch.Tensor | None = None, _: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Drop at the node's ratio (an attribute before opset 12), and scale what stays; also return what stays."""
    share = call.get("ratio", 0.5) if ratio is None else ratio.item()
    kept = torch.rand_like(values) >= share
    return values * kept / (1 - share) if share < 1 else torch.zeros_like(values), kept


@operator("Dropout", attributes="ratio seed is_test", outputs=2, train=train_dropout)
def dropout(_: Call, values: torch.Tensor, *__: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Drop nothing, as in inference."""
    return values, torch.ones_like(values, dtype=torch.bool)
