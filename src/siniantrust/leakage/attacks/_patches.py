"""Local linear regression: one least-squares filter from a neighbourhood of features to the pixels below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch.nn import functional

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._features import FeatureSet
from siniantrust.leakage._registry import Problem
from siniantrust.leakage._torch import generator, tensor
from siniantrust.leakage.attacks._grid import regression_cell, to_grid
from siniantrust.leakage.attacks._kernel import Regression, mean_answer

# Most channels of a map by the side of the window, so that about 600 coefficients per output are to be determined.
_MAX_CHANNELS = {3: 64, 1: 512}
_PENALTIES = (1e-5, 1e-3, 1e-1)
_CHUNK_ITEMS = 250


@dataclass(frozen=True, slots=True)
class _Stage:
    """How features and a first reconstruction become channels on the grid, and how far a filter sees."""

    cell: int
    grid: tuple[int, int]
    window: int
    tensors: tuple[int, ...]
    components: tuple[torch.Tensor, ...] = field(repr=False)

    def channels(self, features: FeatureSet, base: torch.Tensor, rows: slice) -> torch.Tensor:
        """Return (rows, channels, *grid): projected feature maps, then the first reconstruction's cells."""
        parts = [
            functional.conv2d(to_grid(tensor(features.tensor(index, rows)), *self.grid), weights)
            for index, weights in zip(self.tensors, self.components, strict=True)
        ]
        # About as spread as the standardised features.
        return torch.cat([*parts, functional.pixel_unshuffle(base[rows] - 0.5, self.cell) * 4], dim=1)


def patch_regression(problem: Problem, base: Regression, budget: Budget, seed: int) -> Regression:
    """Correct a first reconstruction by what each neighbourhood of 3 x 3 positions says of its own pixels.

    One linear filter serves all positions, so that a few items give tens of thousands of equations: this is what undoes
    early convolutions, where regression over whole images has too few examples. It is the least-squares solution of the
    decoder's first layer. The answer is the best on the validation items of: the base, the corrected base, and local
    regression on its own.
    """
    return _best(
        problem, [base, *_corrected(problem, base, budget, seed, window=3), local_regression(problem, budget, seed)]
    )


def local_regression(problem: Problem, budget: Budget, seed: int) -> Regression:
    """Correct the mean input by local regression; a filter sees one position or 3 x 3, whichever validates better.

    Returns the mean input where no tensor is a map, or no map is fine enough, or the validation items do not gain.
    """
    key = f"local regression {seed} {budget.patch_rows}"
    known = problem.memo.get(key)
    if isinstance(known, Regression):
        return known
    mean = mean_answer(problem)
    base = replace(mean, detail="the mean input")
    trials = [found for window in _MAX_CHANNELS for found in _corrected(problem, base, budget, seed, window=window)]
    found = _best(problem, [mean, *trials])
    problem.memo[key] = found
    return found


def _best(problem: Problem, trials: Sequence[Regression]) -> Regression:
    truth = tensor(problem.validation_targets).flatten(1)
    errors = [float((trial.validation - truth).square().mean()) for trial in trials]
    return trials[int(np.argmin(errors))]


def _corrected(problem: Problem, base: Regression, budget: Budget, seed: int, *, window: int) -> list[Regression]:
    """Return the base corrected by the filters that do best on the validation items; nothing where none can be had."""
    shape = problem.attacker_targets.shape[1:]
    maps = [index for index, item in enumerate(problem.attacker.shapes) if len(item) == 3]  # noqa: PLR2004 - (C, h, w)
    side = max((problem.attacker.shapes[index][1] for index in maps), default=0)
    cell = regression_cell(shape[1], shape[2], side) if maps else None
    if cell is None:
        return []
    images = {
        "attacker": base.attacker.reshape(-1, *shape),
        "validation": base.validation.reshape(-1, *shape),
        "heldout": base.heldout.reshape(-1, *shape),
    }
    grid = (shape[1] // cell, shape[2] // cell)
    items = max(1, min(len(problem.attacker), budget.patch_rows // (grid[0] * grid[1])))
    chosen = torch.randperm(len(problem.attacker), generator=generator(seed))[:items]
    components = tuple(_principal(problem.attacker, index, grid, _MAX_CHANNELS[window]) for index in maps)
    stage = _Stage(cell, grid, window, tuple(maps), components)

    wanted = functional.pixel_unshuffle(tensor(problem.attacker_targets) - images["attacker"], cell)
    normal, right = _normal_equations(stage, problem.attacker, images["attacker"], wanted, chosen)
    truth = tensor(problem.validation_targets)
    solutions: list[tuple[float, torch.Tensor]] = []
    for penalty in _PENALTIES:
        system = normal + penalty * normal.diagonal().mean() * torch.eye(len(normal))
        weights = torch.linalg.solve(system, right).float()
        corrected = _apply(stage, problem.validation, images["validation"], weights)
        solutions.append((float((corrected - truth).square().mean()), weights))
    best = min(solutions, key=lambda solution: solution[0])[1]
    return [
        Regression(
            attacker=_apply(stage, problem.attacker, images["attacker"], best).flatten(1),
            validation=_apply(stage, problem.validation, images["validation"], best).flatten(1),
            heldout=_apply(stage, problem.heldout, images["heldout"], best).flatten(1),
            detail=f"{base.detail}; local regression on {grid[0]} x {grid[1]}, window {window} x {window}",
        )
    ]


def _principal(features: FeatureSet, index: int, grid: tuple[int, int], most: int) -> torch.Tensor:
    """Return the 1 x 1 filters of the map's ``most`` principal components, or of its channels, at unit variance."""
    sample = to_grid(tensor(features.tensor(index, slice(0, _CHUNK_ITEMS))), *grid)
    flat = sample.transpose(0, 1).flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    if len(flat) <= most:
        spread = flat.square().mean(dim=1)
        return torch.diag(1 / spread.clamp_min(1e-4 * float(spread.max()) + 1e-12).sqrt())[:, :, None, None]
    variances, vectors = torch.linalg.eigh(flat @ flat.T / flat.shape[1])
    kept = variances[-most:].clamp_min(1e-4 * float(variances[-1]) + 1e-12)
    filters: torch.Tensor = (vectors[:, -most:] / kept.sqrt()).T[:, :, None, None].contiguous()
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
        columns = _neighbourhoods(stage.channels(features, base, rows)[keep], stage.window)
        outcome = wanted[rows][keep].flatten(2).transpose(1, 2).flatten(0, 1)
        if normal is None or right is None:
            normal, right = (columns.T @ columns).double(), (columns.T @ outcome).double()
        else:
            normal += columns.T @ columns
            right += columns.T @ outcome
    if normal is None or right is None:
        raise ValueError("no items to fit on")
    return normal, right


def _neighbourhoods(channels: torch.Tensor, window: int) -> torch.Tensor:
    """Return (positions, window² x channels + 1): every neighbourhood and a constant."""
    columns = functional.unfold(channels, window, padding=window // 2).transpose(1, 2).flatten(0, 1)
    return torch.cat([columns, torch.ones(len(columns), 1)], dim=1)


def _apply(stage: _Stage, features: FeatureSet, base: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    outputs = weights.shape[1]
    corrected = []
    for start in range(0, len(features), _CHUNK_ITEMS):
        rows = slice(start, start + _CHUNK_ITEMS)
        channels = stage.channels(features, base, rows)
        filters = weights[:-1].T.reshape(outputs, channels.shape[1], stage.window, stage.window)
        change = functional.conv2d(channels, filters, bias=weights[-1], padding=stage.window // 2)
        corrected.append(base[rows] + functional.pixel_shuffle(change, stage.cell))
    return torch.cat(corrected)
