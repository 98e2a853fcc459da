"""Rounding and quantising: exact forwards, and the identity's gradient backwards (straight-through)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnx import TensorProto

from siniantrust.odla.torch_graph._table import Call, one_of, operator
from siniantrust.odla.torch_graph._types import DTYPES

_INTEGERS = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16)


class _StraightThrough(torch.autograd.Function):
    """Returns ``rounded`` and hands its gradient to ``values`` (Bengio, Léonard, Courville 2013)."""

    @staticmethod
    def forward(_: Any, values: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        """Return ``rounded``."""
        return rounded.view_as(values)

    @staticmethod
    def backward(_: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient for ``values``."""
        return gradients[0], None


def _straight_through(values: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    answer: torch.Tensor = _StraightThrough.apply(values, rounded.detach())  # type: ignore[no-untyped-call] # torch's
    return answer


def _rounding(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    def run(_: Call, values: torch.Tensor) -> torch.Tensor:
        return _straight_through(values, function(values))

    return run


for _name, _function in {"Ceil": torch.ceil, "Floor": torch.floor, "Round": torch.round, "Sign": torch.sign}.items():
    operator(_name)(_rounding(_function))


@operator(
    "QuantizeLinear",
    attributes="axis saturate",
    only={"output_dtype": one_of(0, *_INTEGERS), "block_size": one_of(0), "precision": one_of(0)},
)
def quantise(
    call: Call, values: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None = None
) -> torch.Tensor:
    """Scale, round and saturate; the answer stays floating, so that gradients pass to what is not saturated."""
    dtype = DTYPES[call.get("output_dtype", 0) or TensorProto.UINT8] if zero_point is None else zero_point.dtype
    scale = _on_axis(call, scale, values)
    zero = torch.zeros_like(scale) if zero_point is None else _on_axis(call, zero_point, values).to(values.dtype)
    scaled = values / scale
    limits = torch.iinfo(dtype)
    return (_straight_through(scaled, scaled.round()) + zero).clamp(limits.min, limits.max)


@operator("DequantizeLinear", attributes="axis", only={"block_size": one_of(0), "output_dtype": one_of(0)})
def dequantise(
    call: Call, values: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None = None
) -> torch.Tensor:
    """Undo the quantisation but for the rounding."""
    scale = _on_axis(call, scale, values)
    shifted = values.to(scale.dtype)
    if zero_point is not None:
        shifted = shifted - _on_axis(call, zero_point, values).to(scale.dtype)
    return shifted * scale


def _on_axis(call: Call, numbers: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return one number for all values, or one for each place along the axis, ready to broadcast."""
    if numbers.numel() == 1:
        return numbers.reshape(())
    axis = call.get("axis", 1) % values.ndim
    return numbers.reshape([-1 if place == axis else 1 for place in range(values.ndim)])
