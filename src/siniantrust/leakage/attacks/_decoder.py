"""Trained decoders: networks that learn what a closed-form reconstruction still lacks."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._features import FeatureSet
from siniantrust.leakage._metrics import has_ssim
from siniantrust.leakage._parallel import seeded
from siniantrust.leakage._registry import Problem
from siniantrust.leakage._similarity import ssim
from siniantrust.leakage.attacks._grid import decoder_cell, to_grid
from siniantrust.leakage.attacks._kernel import Regression

_BLOCKS = 2
_LEARNING_RATE = 3e-3
_CHECK_STEPS = 50
_CHUNK_ITEMS = 250
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


class ImageDecoder(nn.Module):
    """A residual decoder: image = base + what a small network makes of the features and the base.

    The last layer starts at zero, so that before training the answer is the base.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], target: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.cell = decoder_cell(target[1], target[2])
        grid = (target[1] // self.cell, target[2] // self.cell)
        self.stems = nn.ModuleList(
            _MapStem(shape, width, grid) if len(shape) == _MAP_RANK else _VectorStem(math.prod(shape), width, grid)
            for shape in shapes
        )
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


def train_decoder(problem: Problem, base: Regression, budget: Budget, seed: int) -> tuple[torch.Tensor, str]:
    """Train a decoder on the attacker's items; return its held-out answers (N, *target) and what happened.

    The loss is the squared error over the prior's, plus 1 - SSIM for images. Adam with a one-cycle learning rate
    (Smith, Topin 2018). The state that did best on the validation items is kept, the untrained one among them.
    """
    target = problem.attacker_targets.shape[1:]
    bases = [part.reshape(-1, *target) for part in (base.attacker, base.validation, base.heldout)]
    truth = torch.as_tensor(problem.attacker_targets)
    checks = torch.as_tensor(problem.validation_targets)
    prior_error = float((truth - truth.mean(dim=0)).square().mean()) or 1.0
    structural = has_ssim(target, problem.kind)

    def loss(answer: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        value = (answer - wanted).square().mean() / prior_error
        return value + 1 - ssim(answer, wanted).mean() if structural else value

    with seeded(seed):
        kind = ImageDecoder if problem.kind == "image" else ArrayDecoder
        decoder = kind(problem.attacker.shapes, target, budget.width)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=_LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LEARNING_RATE, total_steps=budget.steps + 1)
    generator = torch.Generator().manual_seed(seed)
    started = time.monotonic()
    best = float(loss(bases[1], checks))
    first, kept, done = best, {name: value.clone() for name, value in decoder.state_dict().items()}, 0
    for done in range(1, budget.steps + 1):
        rows = torch.randint(0, len(truth), (budget.batch_items,), generator=generator)
        error = loss(decoder(_tensors(problem.attacker, rows), bases[0][rows]), truth[rows])
        optimiser.zero_grad()
        torch.autograd.backward(error)
        optimiser.step()
        schedule.step()
        late = time.monotonic() - started > budget.attack_time_s
        if done % _CHECK_STEPS == 0 or done == budget.steps or late:
            value = float(loss(_answer(decoder, problem.validation, bases[1]), checks))
            if value < best:
                best, kept = value, {name: value.clone() for name, value in decoder.state_dict().items()}
        if late:
            break
    decoder.load_state_dict(kept)
    detail = f"{done} steps, validation loss {first:.3f} to {best:.3f}"
    if done < budget.steps:
        detail += f", stopped at {budget.attack_time_s:g} s of {budget.steps} steps"
    return _answer(decoder, problem.heldout, bases[2]), detail


def _tensors(features: FeatureSet, rows: torch.Tensor | slice) -> list[torch.Tensor]:
    index = rows.numpy() if isinstance(rows, torch.Tensor) else rows
    return [torch.as_tensor(features.tensor(number, index)) for number in range(len(features.stores))]


def _answer(decoder: nn.Module, features: FeatureSet, base: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat(
            [
                decoder(_tensors(features, slice(start, start + _CHUNK_ITEMS)), base[start : start + _CHUNK_ITEMS])
                for start in range(0, len(features), _CHUNK_ITEMS)
            ]
        )
