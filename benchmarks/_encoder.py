"""A transformer encoder small enough to be trained on one core: an image's rows are its tokens."""

from __future__ import annotations

import torch
from _study_networks import Recipe
from torch import nn

_WIDTH, _HEADS, _BLOCKS = 64, 4, 2


class _Attention(nn.Module):
    """Self-attention of several heads over (N, tokens, width) (Vaswani et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(_WIDTH, _WIDTH) for _ in range(4))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return what each token takes from all."""
        form = (values.shape[0], values.shape[1], _HEADS, _WIDTH // _HEADS)
        query, key, value = (
            layer(values).reshape(form).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        weights = torch.softmax(query @ key.transpose(2, 3) * form[-1] ** -0.5, dim=-1)
        mixed: torch.Tensor = self.out((weights @ value).transpose(1, 2).reshape(values.shape))
        return mixed


class _Around(nn.Module):
    """A part, applied to what is normalised, and added."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(_WIDTH)
        self.part = part

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return values + part(norm(values))."""
        summed: torch.Tensor = values + self.part(self.norm(values))
        return summed


class _Embedded(nn.Module):
    """Each row of an image (N, channels, side, side) as a token, with its place added."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.rows = nn.Linear(channels * side, _WIDTH)
        self.places = nn.Parameter(0.02 * torch.randn(side, _WIDTH))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return tokens (N, side, width)."""
        tokens: torch.Tensor = self.rows(images.transpose(1, 2).flatten(2)) + self.places
        return tokens


class _Mean(nn.Module):
    """The mean of all tokens."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return (N, width)."""
        return tokens.mean(dim=1)


def encoder(channels: int, side: int, classes: int) -> nn.Sequential:
    """Build two blocks of attention and two dense layers each, normalised before (Dosovitskiy et al. 2021)."""
    blocks: list[nn.Module] = []
    for _ in range(_BLOCKS):
        wide = nn.Sequential(nn.Linear(_WIDTH, 4 * _WIDTH), nn.GELU(), nn.Linear(4 * _WIDTH, _WIDTH))
        blocks += [_Around(_Attention()), _Around(wide)]
    return nn.Sequential(_Embedded(channels, side), *blocks, nn.LayerNorm(_WIDTH), _Mean(), nn.Linear(_WIDTH, classes))


ENCODER = Recipe(encoder, seen_items=40_000, learning_rate=2e-3)
