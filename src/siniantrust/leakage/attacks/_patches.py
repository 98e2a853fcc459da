"""Local linear regression: one least-squares filter from a neighbourhood of features to the pixels below it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.nn import functional

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._features import FeatureSet
from siniantrust.leakage._registry import Problem
from siniantrust.leakage.attacks._grid import regression_cell, to_grid
from siniantrust.leakage.attacks._kernel import Regression

_MAX_CHANNELS = 64
_PENALTIES = (1e-5, 1e-3, 1e-1)
_CHUNK_ITEMS = 250


@dataclass(frozen=True, slots=True)
class _Stage:
    """How features and a first reconstruction become channels on the grid."""

    cell: int
    grid: tuple[int, int]
    components: tuple[torch.Tensor, ...] = field(repr=False)
    tensors: tuple[int, ...]

    def channels(self, features: FeatureSet, base: torch.Tensor, rows: slice) -> torch.Tensor:
        """Return (rows, channels, *grid): projected feature maps, then the first reconstruction's cells."""
        parts = [
            functional.conv2d(to_grid(torch.as_tensor(features.tensor(index, rows)), *self.grid), weights)
            for index, weights in zip(self.tensors, self.components, strict=True)
        ]
        # About as spread as the standardised features.
        return torch.cat([*parts, functional.pixel_unshuffle(base[rows] - 0.5, self.cell) * 4], dim=1)


def patch_regression(problem: Problem, base: Regression, budget: Budget, seed: int) -> Regression:
    """Correct a first reconstruction by what each neighbourhood of 3 x 3 positions says of its own pixels.

    One linear filter serves all positions, so that a few thousand items give tens of thousands of equations: this is
    what undoes early convolutions, where regression over whole images has too few examples. It is the least-squares
    solution of the decoder's first layer. Returned unchanged if the validation items do not gain.
    """
    shape = problem.attacker_targets.shape[1:]
    maps = [index for index, item in enumerate(problem.attacker.shapes) if len(item) == 3]  # noqa: PLR2004 - (C, h, w)
    side = max((problem.attacker.shapes[index][1] for index in maps), default=0)
    cell = regression_cell(shape[1], shape[2], side) if maps else None
    if cell is None:
        return base
    images = {
        "attacker": base.attacker.reshape(-1, *shape),
        "validation": base.validation.reshape(-1, *shape),
        "heldout": base.heldout.reshape(-1, *shape),
    }
    grid = (shape[1] // cell, shape[2] // cell)
    generator = torch.Generator().manual_seed(seed)
    items = max(1, min(len(problem.attacker), budget.patch_rows // (grid[0] * grid[1])))
    chosen = torch.randperm(len(problem.attacker), generator=generator)[:items]
    stage = _Stage(cell, grid, tuple(_principal(problem.attacker, index, grid) for index in maps), tuple(maps))

    wanted = functional.pixel_unshuffle(torch.as_tensor(problem.attacker_targets) - images["attacker"], cell)
    normal, right = _normal_equations(stage, problem.attacker, images["attacker"], wanted, chosen)
    truth = torch.as_tensor(problem.validation_targets)
    best_error, best = float((images["validation"] - truth).square().mean()), None
    for penalty in _PENALTIES:
        weights = torch.linalg.solve(normal + penalty * normal.diagonal().mean() * torch.eye(len(normal)), right)
        corrected = _apply(stage, problem.validation, images["validation"], weights.float())
        error = float((corrected - truth).square().mean())
        if error < best_error:
            best_error, best = error, weights.float()
    if best is None:
        return base
    detail = f"{base.detail}; local regression on {grid[0]} x {grid[1]}"
    return Regression(
        attacker=_apply(stage, problem.attacker, images["attacker"], best).flatten(1),
        validation=_apply(stage, problem.validation, images["validation"], best).flatten(1),
        heldout=_apply(stage, problem.heldout, images["heldout"], best).flatten(1),
        detail=detail,
    )


def _principal(features: FeatureSet, index: int, grid: tuple[int, int]) -> torch.Tensor:
    """Return the 1 x 1 filters of the map's principal components, scaled to unit variance."""
    sample = to_grid(torch.as_tensor(features.tensor(index, slice(0, _CHUNK_ITEMS))), *grid)
    channels = sample.shape[1]
    if channels <= _MAX_CHANNELS:
        return torch.eye(channels)[:, :, None, None]
    flat = sample.transpose(0, 1).flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    variances, vectors = torch.linalg.eigh(flat @ flat.T / flat.shape[1])
    kept = variances[-_MAX_CHANNELS:].clamp_min(1e-4 * float(variances[-1]) + 1e-12)
    filters: torch.Tensor = (vectors[:, -_MAX_CHANNELS:] / kept.sqrt()).T[:, :, None, None].contiguous()
    return filters


def _normal_equations(
    stage: _Stage, features: FeatureSet, base: torch.Tensor, wanted: torch.Tensor, chosen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum A'A and A'Y over the neighbourhoods of the chosen items, in double precision."""
    normal: torch.Tensor | None = None
    right: torch.Tensor | None = None
    picked = torch.zeros(len(features), dtype=torch.bool)
    picked[chosen] = True
    for start in range(0, len(features), _CHUNK_ITEMS):
        rows = slice(start, start + _CHUNK_ITEMS)
        keep = picked[rows]
        if not bool(keep.any()):
            continue
        columns = _neighbourhoods(stage.channels(features, base, rows)[keep])
        outcome = wanted[rows][keep].flatten(2).transpose(1, 2).flatten(0, 1)
        if normal is None or right is None:
            normal, right = (columns.T @ columns).double(), (columns.T @ outcome).double()
        else:
            normal += columns.T @ columns
            right += columns.T @ outcome
    if normal is None or right is None:
        raise ValueError("no items to fit on")
    return normal, right


def _neighbourhoods(channels: torch.Tensor) -> torch.Tensor:
    """Return (positions, 9 x channels + 1): every 3 x 3 neighbourhood and a constant."""
    columns = functional.unfold(channels, 3, padding=1).transpose(1, 2).flatten(0, 1)
    return torch.cat([columns, torch.ones(len(columns), 1)], dim=1)


def _apply(stage: _Stage, features: FeatureSet, base: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    outputs = weights.shape[1]
    corrected = []
    for start in range(0, len(features), _CHUNK_ITEMS):
        rows = slice(start, start + _CHUNK_ITEMS)
        channels = stage.channels(features, base, rows)
        filters = weights[:-1].T.reshape(outputs, channels.shape[1], 3, 3)
        change = functional.conv2d(channels, filters, bias=weights[-1], padding=1)
        corrected.append(base[rows] + functional.pixel_shuffle(change, stage.cell))
    return torch.cat(corrected)
