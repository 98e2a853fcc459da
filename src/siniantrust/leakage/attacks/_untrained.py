"""Small convolutional networks, one for each image, that are fitted to nothing but that image's features."""

from __future__ import annotations

import torch
from torch.nn import functional

from siniantrust.leakage._torch import generator

_NOISE = 8
_WIDTH = 16


class UntrainedNetworks:
    """An hourglass for each of N images, all computed as one network of N groups.

    Each sees fixed noise and the closed-form reconstruction; ``residual`` ones add to the latter and begin by adding
    nothing, others begin as a grey image. ``weights`` are to be fitted.
    """

    def __init__(self, start: torch.Tensor, *, residual: bool, seed: int) -> None:
        self._start, self._residual = start, residual
        count, channels = start.shape[:2]
        source = generator(seed)
        self._noise = torch.randn((1, count * _NOISE, *start.shape[2:]), generator=source) / 4
        shapes = [(_NOISE + channels, _WIDTH), (_WIDTH, _WIDTH), (_WIDTH, _WIDTH), (2 * _WIDTH, _WIDTH)]
        self.weights: list[torch.Tensor] = []
        for wide, narrow in shapes:
            scale = (2 / (9 * wide)) ** 0.5
            self.weights.append(torch.randn((count * narrow, wide, 3, 3), generator=source) * scale)
            self.weights.append(torch.zeros(count * narrow))
        self.weights += [torch.zeros((count * channels, _WIDTH, 3, 3)), torch.zeros(count * channels)]
        for weight in self.weights:
            weight.requires_grad_()

    def images(self) -> torch.Tensor:
        """Return the images (N, C, height, width) in 0..1 that the networks make with their present weights."""
        count, channels, height, width = self._start.shape
        known = self._start if self._residual else torch.full_like(self._start, 0.5)
        # Each network's inputs side by side: its own noise and its own image.
        signal = torch.cat([self._noise.reshape(count, _NOISE, height, width), known - 0.5], dim=1)
        fine = self._layer(0, signal.reshape(1, -1, height, width))
        coarse = self._layer(2, self._layer(1, functional.avg_pool2d(fine, 2, ceil_mode=True)))
        spread = functional.interpolate(coarse, size=(height, width), mode="bilinear")
        both = torch.cat([part.reshape(count, _WIDTH, height, width) for part in (fine, spread)], dim=1)
        last = self._layer(3, both.reshape(1, -1, height, width))
        change = functional.conv2d(last, self.weights[8], self.weights[9], padding=1, groups=count)
        change = change.reshape(count, channels, height, width)
        return (self._start + change).clamp(0, 1) if self._residual else torch.sigmoid(4 * change)

    def _layer(self, index: int, signal: torch.Tensor) -> torch.Tensor:
        weight, bias = self.weights[2 * index : 2 * index + 2]
        made = functional.conv2d(signal, weight, bias, padding=1, groups=len(self._start))
        return functional.leaky_relu(made, 0.1)
