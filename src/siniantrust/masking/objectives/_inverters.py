"""Networks that guess the input from the features: different ones, so that the features cannot fool one kind alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

_WIDTH = 256
_CHANNELS = 32
_IMAGE = 3  # axes of an item: channels, rows, columns


def make_inverters(feature_shape: Sequence[int], input_shape: Sequence[int]) -> list[nn.Module]:
    """Return untrained inverters from items of features to items of inputs.

    A linear one of rank at most 256, one with hidden layers, and for images from images one of convolutions.
    """
    size_in, size_out = math.prod(feature_shape), math.prod(input_shape)
    shaped = nn.Unflatten(1, tuple(input_shape))
    linear = nn.Sequential(nn.Flatten(), nn.Linear(size_in, _WIDTH), nn.Linear(_WIDTH, size_out), shaped)
    deep = nn.Sequential(
        nn.Flatten(),
        nn.Linear(size_in, _WIDTH),
        nn.LeakyReLU(0.1),
        nn.Linear(_WIDTH, _WIDTH),
        nn.LeakyReLU(0.1),
        nn.Linear(_WIDTH, size_out),
        nn.Unflatten(1, tuple(input_shape)),
    )
    found: list[nn.Module] = [linear, deep]
    if len(feature_shape) == _IMAGE == len(input_shape):
        found.append(
            nn.Sequential(
                nn.Conv2d(feature_shape[0], _CHANNELS, 3, padding=1),
                nn.LeakyReLU(0.1),
                nn.Upsample(tuple(input_shape[1:]), mode="nearest"),
                nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1),
                nn.LeakyReLU(0.1),
                nn.Conv2d(_CHANNELS, input_shape[0], 3, padding=1),
            )
        )
    return found


def explained(guess: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Return the share of the inputs' variance about the batch's mean that a guess explains; below 0 if it is worse."""
    missed = (guess - inputs).square().mean()
    return 1 - missed / (inputs - inputs.mean(0)).square().mean().clamp_min(1e-12)
