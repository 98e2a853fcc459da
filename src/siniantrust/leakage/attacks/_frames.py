"""Features as they pass in time: which of a tensor's axes is time, and what is seen in each stretch of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._registry import Problem
from siniantrust.leakage._torch import array, tensor
from siniantrust.leakage.attacks._coordinates import coordinates
from siniantrust.leakage.attacks._kernel import Regression, gram_of
from siniantrust.leakage.screens._pairwise import MIN_ITEMS, correlation, squared_distances, u_centred

# Most numbers of a frame, and of all frames of an item.
_COMPONENTS = 128
_NUMBERS = 1 << 15
_LEAST_VARIANCE = 1e-6
_CHUNK_ITEMS = 128
# Stretches that time is cut into, and items, to find its axis; and how much more alike the same stretches must be.
_STRETCHES = 8
_FEWEST_STRETCHES = 4
_AXIS_ITEMS = 200
_LEAST_LOCAL = 0.05
# A frame of so many steps is a piece of a wave, which is known by its spectrum.
_WAVE_STEPS = 8
_FLOOR = 1e-2
# Of wider frames the principal components cost more than they tell.
_WIDEST = 4096


@dataclass(frozen=True, slots=True)
class Frames:
    """What is seen of each item over time, (items, frames, numbers), whitened; split as in the problem."""

    attacker: torch.Tensor = field(repr=False)
    validation: torch.Tensor = field(repr=False)
    heldout: torch.Tensor = field(repr=False)

    @property
    def asked(self) -> torch.Tensor:
        """The validation items and then the held-out ones."""
        return torch.cat([self.validation, self.heldout])


def feature_frames(problem: Problem, budget: Budget, seed: int, *, most: int) -> list[Frames]:
    """Return the tensors of a cut that have an axis of time, as at most ``most`` frames each.

    Where none has, all features together, as one frame.
    """
    found = []
    for index in range(len(problem.attacker.stores)):
        axis = _axis(problem, index)
        if axis is not None:
            parts = (problem.attacker, problem.validation, problem.heldout)
            found.append(_frames([_Timed(partial(part.original, index), axis, len(part)) for part in parts], most))
    return [each for each in found if each is not None] or [_vector(problem, budget, seed)]


def picture_frames(pictures: Regression, shape: Sequence[int], *, most: int) -> list[Frames]:
    """Return the columns of reconstructed pictures (N, channels, height, width), from left to right, as frames."""
    parts = [array(part).reshape(-1, *shape) for part in (pictures.attacker, pictures.validation, pictures.heldout)]
    found = _frames([_Timed(part.__getitem__, len(shape) - 1, len(part)) for part in parts], most)
    return [] if found is None else [found]


def time_axis(values: np.ndarray, targets: np.ndarray, axis: int) -> int | None:
    """Return which axis of ``values`` (N, ...), the first behind the items being 0, runs as ``axis`` of the targets.

    Along it, a stretch of the values tells most about the same stretch of the targets (N, ...), by distance correlation
    (Székely and Rizzo 2014), which knows no difference of scale or sign. None if no axis stands out.
    """
    local = {place: _locality(values, place, targets, axis) for place in range(values.ndim - 1)}
    best = max(local, key=lambda place: local[place])
    return best if local[best] > _LEAST_LOCAL else None


def _axis(problem: Problem, index: int) -> int | None:
    shape, targets = problem.attacker.shapes[index], problem.attacker_targets[:_AXIS_ITEMS]
    if problem.attacker.encoders[index].sketch is not None:
        return None
    if problem.kind == "token":
        length = math.prod(targets.shape[1:])
        return shape.index(length) if length in shape[:-1] else None
    longest = targets.ndim - 2 if problem.kind == "image" else int(np.argmax(targets.shape[1:]))
    if len(targets) < MIN_ITEMS:
        return None
    return time_axis(problem.attacker.original(index, slice(0, len(targets))), targets, longest)


def _locality(values: np.ndarray, place: int, targets: np.ndarray, axis: int) -> float:
    """Return by how much stretches tell more about the same stretch of the targets than about the others."""
    count = min(values.shape[place + 1], targets.shape[axis + 1], _STRETCHES)
    if count < _FEWEST_STRETCHES:
        return -math.inf
    seen, meant = (_stretches(each, where, count) for each, where in ((values, place), (targets, axis)))
    alike = np.array([[correlation(one, other) for other in meant] for one in seen])
    same = float(np.trace(alike)) / count
    return float(same - (alike.sum() - count * same) / (count * (count - 1)))


def _stretches(values: np.ndarray, place: int, count: int) -> list[np.ndarray]:
    """Return the centred distances of all items in each of ``count`` stretches along an axis."""
    pieces = np.array_split(values, count, axis=place + 1)
    return [u_centred(np.sqrt(squared_distances(piece.reshape(len(piece), -1)))) for piece in pieces]


@dataclass(frozen=True, slots=True)
class _Timed:
    """Values of ``items`` items, read by rows, (rows, ...), and which axis behind the items is time."""

    read: Callable[[slice], np.ndarray]
    axis: int
    items: int

    def chunks(self) -> Iterator[torch.Tensor]:
        """Yield some items at a time as (items, steps, numbers)."""
        for start in range(0, self.items, _CHUNK_ITEMS):
            values = np.moveaxis(self.read(slice(start, min(start + _CHUNK_ITEMS, self.items))), self.axis + 1, 1)
            yield tensor(values.reshape(*values.shape[:2], -1))


def _frames(parts: Sequence[_Timed], most: int) -> Frames | None:
    """Return whitened frames; None if none ever changes, or one has too many numbers."""
    known = parts[0]
    scale = float(_spectra(next(known.chunks()), most, None).mean()) or 1.0
    total: torch.Tensor = torch.stack([_spectra(chunk, most, scale).sum(dim=0) for chunk in known.chunks()]).sum(dim=0)
    mean = total / known.items
    frames, numbers = mean.shape
    if numbers > _WIDEST:
        return None
    products = torch.zeros(numbers, numbers)
    for chunk in known.chunks():
        flat = (_spectra(chunk, most, scale) - mean).flatten(0, 1)
        products += flat.T @ flat / (known.items * frames)
    variances, vectors = torch.linalg.eigh(products.double())
    # What hardly changes beside its own size is rounding.
    least = _LEAST_VARIANCE * max(float(variances[-1]), _LEAST_VARIANCE * float(mean.square().mean()))
    kept = int((variances > least).sum())
    if kept == 0:
        return None
    kept = min(kept, _COMPONENTS, max(1, _NUMBERS // frames))
    filters = (vectors[:, -kept:] / variances[-kept:].sqrt()).float()
    return Frames(
        *(torch.cat([(_spectra(chunk, most, scale) - mean) @ filters for chunk in part.chunks()]) for part in parts)
    )


def _spectra(values: torch.Tensor, most: int, scale: float | None) -> torch.Tensor:
    """Return values (n, steps, numbers) in at most ``most`` frames, (n, frames, numbers of a frame).

    Few steps are frames as they are, or side by side. Many are a wave, of which each frame, half of it shared with the
    next, has the logarithm of its spectrum's magnitude over ``scale``; without ``scale`` that magnitude itself.
    """
    steps = values.shape[1]
    if steps <= most:
        return values
    hop = steps / most
    wave = hop >= _WAVE_STEPS
    width = math.ceil(2 * hop if wave else hop)
    starts = ((torch.arange(most) + 0.5) * hop - width / 2).round().long()
    windows = values[:, (starts[:, None] + torch.arange(width)).clamp(0, steps - 1)]
    if wave:
        magnitude = torch.fft.rfft(windows * torch.hann_window(width)[:, None], dim=2).abs()
        windows = magnitude if scale is None else (magnitude / scale + _FLOOR).log()
    return windows.flatten(2)


def _vector(problem: Problem, budget: Budget, seed: int) -> Frames:
    vectors = coordinates(gram_of(problem, budget, seed), _COMPONENTS)[:, None]
    return Frames(*torch.split(vectors, [len(problem.attacker), len(problem.validation), len(problem.heldout)]))
