"""The discriminator's network and its training."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from siniantrust.leakage._parallel import seeded

_LEARNING_RATE = 2e-3


def train_discriminator(
    inputs: torch.Tensor, maps: torch.Tensor, *, steps: int, batch: int, seed: int
) -> nn.Sequential:
    """Train a small convolutional network to answer above 0 for inputs and below for feature maps.

    ``inputs`` are (N, 1, S, S), ``maps`` (N, channels, S, S); each batch holds as many of either.
    """
    with seeded(seed):
        side = inputs.shape[-1] // 8
        judge = nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32, 32, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(32 * side * side, 1),
        )
    optimiser = torch.optim.Adam(judge.parameters(), lr=_LEARNING_RATE, betas=(0.5, 0.999))
    half = batch // 2
    wanted = torch.cat([torch.ones(half, 1), torch.zeros(half, 1)])
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        real = inputs[torch.randint(0, len(inputs), (half,), generator=generator)]
        rows = torch.randint(0, len(maps), (half,), generator=generator)
        fake = maps[rows, torch.randint(0, maps.shape[1], (half,), generator=generator)][:, None]
        error = functional.binary_cross_entropy_with_logits(judge(torch.cat([real, fake])), wanted)
        optimiser.zero_grad()
        torch.autograd.backward(error)
        optimiser.step()
    return judge
