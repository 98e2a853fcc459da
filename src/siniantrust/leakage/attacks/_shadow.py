"""Shadow networks: stand-ins for the trusted side, trained so that the untrusted side works on what they make."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._features import FeatureSet
from siniantrust.leakage._parallel import seeded
from siniantrust.leakage._registry import InapplicableError, Problem, WhiteBox
from siniantrust.leakage._torch import array, generator, tensor

_LEARNING_RATE = 3e-3
_SEEN_ITEMS = 500
_CHUNK_ITEMS = 250
_MAP_RANK = 3
_COARSE = 4
# What half floats hold.
_HALF_MAX = 60_000.0


class _Likeness(nn.Module):
    """Gives each channel (of a vector, each number) the mean and the spread that was seen of the real one."""

    def __init__(self, seen: torch.Tensor) -> None:
        super().__init__()
        self.maps = seen.ndim == _MAP_RANK + 1
        flat = seen if self.maps else seen.flatten(1)
        axes = (0, 2, 3) if self.maps else (0,)
        mean, spread = flat.mean(dim=axes, keepdim=True), flat.std(dim=axes, keepdim=True)
        self.mean, self.spread = nn.Buffer(mean), nn.Buffer(spread)
        self.normal = (
            nn.BatchNorm2d(flat.shape[1], affine=False) if self.maps else nn.BatchNorm1d(flat.shape[1], affine=False)
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        normal = self.normal(values if self.maps else values.flatten(1))
        answer: torch.Tensor = normal * self.spread + self.mean
        return answer.reshape(values.shape)


class _Shadow(nn.Module):
    """A trunk for images or arrays, and a head with the shape and the statistics of each of the cut's tensors."""

    def __init__(self, target: tuple[int, ...], seen: Sequence[torch.Tensor], width: int, *, image: bool) -> None:
        super().__init__()
        self.image = image
        self.shapes = [tuple(values.shape[1:]) for values in seen]
        if image:
            finest = max((max(shape[1:]) for shape in self.shapes if self._is_map(shape)), default=_COARSE)
            strides = _strides(min(target[1:]), finest)
            layers = [
                nn.Conv2d(target[0], width, 3, padding=1, stride=strides[0]),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1, stride=strides[1]),
            ]
            hidden = width * _COARSE**2
        else:
            layers, hidden = [nn.Flatten(), nn.Linear(math.prod(target), 8 * width)], 8 * width
        self.trunk = nn.Sequential(*layers, nn.ReLU())
        self.heads = nn.ModuleList(
            nn.Conv2d(width, shape[0], 3, padding=1) if self._is_map(shape) else nn.Linear(hidden, math.prod(shape))
            for shape in self.shapes
        )
        self.likenesses = nn.ModuleList(_Likeness(values) for values in seen)

    def forward(self, targets: torch.Tensor) -> list[torch.Tensor]:
        """Return features (N, *shape) of each of the cut's tensors for targets (N, *target shape)."""
        trunk = self.trunk(targets - 0.5)
        made = []
        for shape, head, likeness in zip(self.shapes, self.heads, self.likenesses, strict=True):
            if self._is_map(shape):
                values = head(functional.adaptive_avg_pool2d(trunk, (shape[1], shape[2])))
            else:
                pooled = functional.adaptive_avg_pool2d(trunk, _COARSE) if self.image else trunk
                values = head(pooled.flatten(1)).reshape(-1, *shape)
            made.append(likeness(values))
        return made

    def _is_map(self, shape: tuple[int, ...]) -> bool:
        return self.image and len(shape) == _MAP_RANK


def _strides(side: int, finest: int) -> tuple[int, int]:
    """Return the strides of two convolutions that keep twice the finest of the cut's maps: more is thrown away."""
    spare = side // (2 * finest)
    return (2 if spare > 1 else 1), (2 if spare > 3 else 1)  # noqa: PLR2004 - halved twice is a quarter


def train_shadow(
    problem: Problem, network: WhiteBox, budget: Budget, seed: int, *, deadline: float
) -> tuple[nn.Module, float]:
    """Train a shadow of the trusted side until ``deadline`` at most; return it and its accuracy at the end.

    The loss is the cross-entropy of what the untrusted side makes of the shadow's features against the labels. Each
    channel gets the mean and the spread of the held-out features. No feature of a known input is used.

    Raises:
        InapplicableError: if there are no labels, or the model's output is no score for each of them.
    """
    if problem.attacker_labels is None:
        raise InapplicableError("the data have no labels, which a shadow of the trusted side is trained on")
    labels, targets = tensor(problem.attacker_labels).long(), tensor(problem.attacker_targets)
    seen = [
        tensor(problem.heldout.tensor(index, slice(0, _SEEN_ITEMS))) for index in range(len(problem.heldout.stores))
    ]
    _require_scores(network.outputs([values[:1] for values in seen]), labels)
    with seeded(seed):
        shadow = _Shadow(tuple(targets.shape[1:]), seen, budget.width, image=problem.kind == "image")
    optimiser = torch.optim.Adam(shadow.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2 * _LEARNING_RATE, total_steps=budget.steps + 1)
    source = generator(seed)
    done, correct = 0, torch.zeros(())
    while done < budget.steps and (done == 0 or time.monotonic() < deadline):
        rows = torch.randint(0, len(targets), (budget.batch_items,), generator=source)
        scores = _log_scores(network.outputs(shadow(targets[rows])))
        loss = functional.nll_loss(scores, labels[rows])
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        correct = (scores.argmax(dim=1) == labels[rows]).float().mean()
        done += 1
    return shadow.eval(), float(correct)


def shadow_features(shadows: Sequence[nn.Module], targets: np.ndarray, like: FeatureSet) -> FeatureSet:
    """Return what the shadows make of ``targets`` (N, *shape), of each item another one, in the form of ``like``.

    What is then learned holds for all of them: where they differ, nothing is.
    """
    stores = tuple(np.zeros((len(targets), *shape), dtype=np.float16) for shape in like.shapes)
    with torch.no_grad():
        for turn, shadow in enumerate(shadows):
            rows = np.arange(turn, len(targets), len(shadows))
            for start in range(0, len(rows), _CHUNK_ITEMS):
                chunk = rows[start : start + _CHUNK_ITEMS]
                for store, values in zip(stores, shadow(tensor(targets[chunk])), strict=True):
                    store[chunk] = array(values.clamp(-_HALF_MAX, _HALF_MAX))
    return FeatureSet(stores=stores, encoders=like.encoders, start=0, stop=len(targets), note=like.note)


def _log_scores(outputs: torch.Tensor) -> torch.Tensor:
    """Return log probabilities (N, classes), whether the model gives probabilities or scores before the softmax."""
    flat = outputs.flatten(1).float()
    sums = flat.detach().sum(dim=1)
    if bool((flat.detach() >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all()):  # noqa: PLR2004 - half floats' sums
        return flat.clamp_min(1e-12).log()
    return functional.log_softmax(flat, dim=1)


def _require_scores(outputs: torch.Tensor, labels: torch.Tensor) -> None:
    classes = outputs.flatten(1).shape[1]
    if classes < 2 or int(labels.min()) < 0 or int(labels.max()) >= classes:  # noqa: PLR2004 - one class tells nothing
        raise InapplicableError(
            f"the labels run from {int(labels.min())} to {int(labels.max())}, the model's output has {classes} numbers"
        )
