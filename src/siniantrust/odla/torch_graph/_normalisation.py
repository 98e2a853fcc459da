"""Normalisation layers, as in inference."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from siniantrust.odla.torch_graph._table import Call, one_of, operator

_SCALES_PER_CHANNEL = 21


def train_batch_normalisation(
    call: Call,
    values: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
) -> torch.Tensor:
    """Normalise each channel by the batch's statistics, and move the running ones towards them, as torch does."""
    share = 1 - call.get("momentum", 0.9)
    epsilon = call.get("epsilon", 1e-5)
    return functional.batch_norm(values, mean, variance, scale, bias, training=True, momentum=share, eps=epsilon)


@operator(
    "BatchNormalization",
    attributes="consumed_inputs epsilon is_test momentum",
    only={"spatial": one_of(1), "training_mode": one_of(0)},
    train=train_batch_normalisation,
)
def batch_normalisation(
    call: Call,
    values: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
) -> torch.Tensor:
    """Normalise each channel by stored statistics."""
    column = (-1, *[1] * (values.ndim - 2))
    factor = scale / torch.sqrt(variance + call.get("epsilon", 1e-5))
    shift = bias - mean * factor
    return (values * factor.reshape(column) + shift.reshape(column)).to(values.dtype)


@operator("InstanceNormalization", attributes="epsilon consumed_inputs")
def instance_normalisation(call: Call, values: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Normalise each channel of each item by its own statistics."""
    axes, column = tuple(range(2, values.ndim)), (-1, *[1] * (values.ndim - 2))
    centred = values - values.mean(axes, keepdim=True)
    spread = torch.sqrt(centred.square().mean(axes, keepdim=True) + call.get("epsilon", 1e-5))
    return centred / spread * scale.reshape(column) + bias.reshape(column)


@operator("LayerNormalization", attributes="axis epsilon stash_type", outputs=3)
def layer_normalisation(
    call: Call, values: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalise over all axes from ``axis`` on; also return the mean and the inverse spread."""
    axes = tuple(range(call.get("axis", -1) % values.ndim, values.ndim))
    mean = values.mean(axes, keepdim=True)
    centred = values - mean
    inverse = torch.rsqrt(centred.square().mean(axes, keepdim=True) + call.get("epsilon", 1e-5))
    answer = centred * inverse * scale
    return answer if bias is None else answer + bias, mean, inverse


@operator("RMSNormalization", attributes="axis epsilon stash_type")
def rms_normalisation(call: Call, values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Divide by the root of the mean square over all axes from ``axis`` on."""
    axes = tuple(range(call.get("axis", -1) % values.ndim, values.ndim))
    return values * torch.rsqrt(values.square().mean(axes, keepdim=True) + call.get("epsilon", 1e-5)) * scale


@operator("GroupNormalization", attributes="epsilon num_groups stash_type")
def group_normalisation(call: Call, values: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Normalise groups of channels; scale and bias are per group before opset 21, then per channel."""
    groups = call.get("num_groups")
    if call.opset < _SCALES_PER_CHANNEL:
        each = values.shape[1] // groups
        scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
    return functional.group_norm(values, groups, scale, bias, call.get("epsilon", 1e-5))


@operator("LRN", attributes="alpha beta bias size")
def local_response_normalisation(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Divide by the energy of the neighbouring channels (Krizhevsky, Sutskever, Hinton 2012)."""
    size = call.get("size")
    below, above = math.floor((size - 1) / 2), math.ceil((size - 1) / 2)
    squares = functional.pad(values.square(), [0, 0] * (values.ndim - 2) + [below, above])
    energy = squares.unfold(1, size, 1).sum(dim=-1)
    return values / energy.mul(call.get("alpha", 1e-4) / size).add(call.get("bias", 1.0)).pow(call.get("beta", 0.75))


@operator("LpNormalization", attributes="axis", only={"p": one_of(1, 2)})
def lp_normalisation(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Divide by the norm along an axis; zeros stay zeros."""
    norm = torch.linalg.vector_norm(values, call.get("p", 2), call.get("axis", -1), keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(values), values / norm)
