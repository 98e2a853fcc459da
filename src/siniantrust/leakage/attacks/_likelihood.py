"""What attacks share that fit inputs to observed features through the known network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._features import FeatureSet
from siniantrust.leakage._registry import InapplicableError, Problem, WhiteBox
from siniantrust.leakage._torch import tensor
from siniantrust.leakage.attacks._warm import warm_start

_SPREAD_ITEMS = 128
# Numbers of features and pixels that one gradient step holds; inside the network there are about as many again.
_STEP_NUMBERS = 1 << 23
_STEP_ITEMS = 64


@dataclass(frozen=True, slots=True)
class Likelihood:
    """The network before a cut, and how far each of its tensors spreads over items."""

    network: WhiteBox
    spreads: tuple[float, ...]

    @classmethod
    def of(cls, problem: Problem) -> Likelihood:
        """Return the likelihood at the problem's cut.

        Raises:
            InapplicableError: if the network is not known, or no gradient reaches its input from the cut.
        """
        if problem.white_box is None:
            raise InapplicableError("the network is not known as one that PyTorch can run")
        network = problem.white_box()
        probe = tensor(problem.attacker_targets[:1]).requires_grad_()
        if not any(found.requires_grad for found in network.features(probe)):
            raise InapplicableError("no gradient passes from the cut to the input")
        rows = slice(0, _SPREAD_ITEMS)
        known = [tensor(problem.attacker.tensor(index, rows)) for index in range(len(problem.attacker.stores))]
        spreads = tuple(float((values - values.mean(dim=0)).square().mean()) or 1.0 for values in known)
        return cls(network, spreads)

    def misfit(self, answer: torch.Tensor, observed: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return for each item (N,) the squared distance of its features to the observed, 1 for unrelated ones.

        Each tensor is in units of its variance over items, and all numbers of all tensors weigh alike.
        """
        total, numbers = torch.zeros(len(answer)), 0
        for found, wanted, spread in zip(self.network.features(answer), observed, self.spreads, strict=True):
            total = total + (found - wanted).square().flatten(1).sum(dim=1) / spread
            numbers += wanted[0].numel()
        return total / max(numbers, 1)


@dataclass(frozen=True, slots=True)
class Items:
    """Items to invert: what was observed of them, one tensor (N, *shape) each, and where the search starts."""

    observed: tuple[torch.Tensor, ...] = field(repr=False)
    start: torch.Tensor = field(repr=False)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.start)

    def rows(self, rows: slice) -> Items:
        """Return some of the items."""
        return Items(tuple(values[rows] for values in self.observed), self.start[rows])

    def repeated(self, times: int) -> Items:
        """Return all items, ``times`` times one after the other."""
        return Items(
            tuple(values.repeat(times, *[1] * (values.ndim - 1)) for values in self.observed),
            self.start.repeat(times, *[1] * (self.start.ndim - 1)),
        )

    def chunks(self) -> Iterator[slice]:
        """Yield the rows that one gradient step can hold."""
        numbers = sum(values[0].numel() for values in (*self.observed, self.start))
        size = max(1, min(_STEP_ITEMS, _STEP_NUMBERS // max(numbers, 1)))
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))


def heldout_items(problem: Problem, budget: Budget, *, count: int) -> Items:
    """Return the first ``count`` held-out items, starting from the closed-form reconstruction."""
    base = warm_start(problem, budget).heldout
    return _items(problem, problem.heldout, base, min(count, len(problem.heldout)))


def known_items(problem: Problem, budget: Budget, *, count: int) -> tuple[Items, torch.Tensor]:
    """Return the first ``count`` validation items in the same form, and their true inputs."""
    base = warm_start(problem, budget).validation
    items = _items(problem, problem.validation, base, min(count, len(problem.validation)))
    return items, tensor(problem.validation_targets[: len(items)])


def _items(problem: Problem, features: FeatureSet, base: torch.Tensor, count: int) -> Items:
    rows = slice(0, count)
    start = base[rows].reshape(-1, *problem.attacker_targets.shape[1:])
    return Items(
        observed=tuple(tensor(features.tensor(index, rows)) for index in range(len(features.stores))),
        # The attacker knows the range of a pixel.
        start=start.clamp(0, 1) if problem.kind == "image" else start,
    )
