"""Networks that map features and a closed-form reconstruction to inputs, or judge such pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from siniantrust.leakage.attacks._grid import decoder_cell, to_grid

_BLOCKS = 2
_MAP_RANK = 3


class _Block(nn.Module):
    """Two 3 x 3 convolutions around which the signal also passes; does nothing before it is trained."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = self.second(functional.relu(self.first(functional.relu(signal))))
        return signal + changed


class _VectorStem(nn.Module):
    """A vector spread over the grid: a dense layer to a quarter of its side, then channels to space."""

    def __init__(self, size: int, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.coarse = (math.ceil(grid[0] / 4), math.ceil(grid[1] / 4))
        self.channels = max(8, width // 2)
        self.dense = nn.Linear(size, self.channels * self.coarse[0] * self.coarse[1])
        self.spread = nn.Conv2d(self.channels, width * 16, 1)

    def forward(self, vector: torch.Tensor) -> torch.Tensor:
        coarse = functional.relu(self.dense(vector.flatten(1))).reshape(-1, self.channels, *self.coarse)
        fine = functional.pixel_shuffle(self.spread(coarse), 4)
        return fine[:, :, : self.grid[0], : self.grid[1]]


class _MapStem(nn.Module):
    """Feature maps brought to the grid; a coarser map's positions get their own filters per cell."""

    def __init__(self, shape: tuple[int, ...], width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.factor = 1
        if grid[0] % shape[1] == 0 and grid[1] % shape[2] == 0 and grid[0] // shape[1] == grid[1] // shape[2]:
            self.factor = grid[0] // shape[1]
        channels = shape[0] if self.factor > 1 else to_grid(torch.zeros(1, *shape), *grid).shape[1]
        self.filters = nn.Conv2d(channels, width * self.factor**2, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        if self.factor > 1:
            return functional.pixel_shuffle(self.filters(maps), self.factor)
        result: torch.Tensor = self.filters(to_grid(maps, *self.grid))
        return result


def _stems(shapes: Sequence[tuple[int, ...]], width: int, grid: tuple[int, int]) -> nn.ModuleList:
    return nn.ModuleList(
        _MapStem(shape, width, grid) if len(shape) == _MAP_RANK else _VectorStem(math.prod(shape), width, grid)
        for shape in shapes
    )


class ImageDecoder(nn.Module):
    """A residual decoder: image = base + what a small network makes of the features and the base.

    The last layer starts at zero, so that before training the answer is the base.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], target: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.cell = decoder_cell(target[1], target[2])
        grid = (target[1] // self.cell, target[2] // self.cell)
        self.stems = _stems(shapes, width, grid)
        pixels = target[0] * self.cell**2
        self.base = nn.Conv2d(pixels, width, 3, padding=1)
        self.place = nn.Parameter(torch.zeros(1, width, *grid))
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(_BLOCKS)))
        self.head = nn.Conv2d(width, pixels, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias) if self.head.bias is not None else None

    def forward(self, features: Sequence[torch.Tensor], base: torch.Tensor) -> torch.Tensor:
        """Return images (N, *target) for each tensor's features and the base images."""
        signal = self.base(functional.pixel_unshuffle(base - 0.5, self.cell)) + self.place
        for stem, values in zip(self.stems, features, strict=True):
            signal = signal + stem(values)
        change = self.head(functional.relu(self.blocks(signal)))
        return base + functional.pixel_shuffle(change, self.cell)


class ArrayDecoder(nn.Module):
    """The same for data that are no images: a perceptron with two hidden layers on features and base."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], target: tuple[int, ...], width: int) -> None:
        super().__init__()
        size, hidden = math.prod(target), 8 * width
        self.first = nn.Linear(sum(math.prod(shape) for shape in shapes) + size, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, size)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Sequence[torch.Tensor], base: torch.Tensor) -> torch.Tensor:
        """Return items (N, *target) for each tensor's features and the base items."""
        signal = torch.cat([*(values.flatten(1) for values in features), base.flatten(1)], dim=1)
        hidden = functional.relu(self.second(functional.relu(self.first(signal))))
        change: torch.Tensor = self.head(hidden)
        return base + change.reshape(base.shape)


class Critic(nn.Module):
    """Judges at each place of the grid whether an image is the one that features come from, as a logit.

    The discriminator of pix2pix (Isola et al. 2017): it sees the image and what the image is to be made from.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], target: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.cell = decoder_cell(target[1], target[2])
        grid = (target[1] // self.cell, target[2] // self.cell)
        self.stems = _stems(shapes, width, grid)
        self.image = nn.Conv2d(target[0] * self.cell**2, width, 3, padding=1)
        self.joint = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, features: Sequence[torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, 1, *grid), positive for true images."""
        signal = self.image(functional.pixel_unshuffle(images - 0.5, self.cell))
        for stem, values in zip(self.stems, features, strict=True):
            signal = signal + stem(values)
        joint = functional.leaky_relu(self.joint(functional.leaky_relu(signal, 0.2)), 0.2)
        logits: torch.Tensor = self.head(joint)
        return logits
