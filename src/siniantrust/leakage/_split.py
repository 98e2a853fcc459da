"""Who knows what: the attacker's, the validation's and the held-out items are disjoint."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from siniantrust.errors import DataError
from siniantrust.leakage._budget import Budget

_HELDOUT_SHARE = 0.3
_VALIDATION_SHARE = 0.1
MIN_ITEMS = 40


@dataclass(frozen=True, slots=True)
class Split:
    """Disjoint item numbers."""

    attacker: np.ndarray = field(repr=False)
    validation: np.ndarray = field(repr=False)
    heldout: np.ndarray = field(repr=False)

    @property
    def order(self) -> np.ndarray:
        """All item numbers: attacker, then validation, then held-out."""
        return np.concatenate([self.attacker, self.validation, self.heldout])


def split_items(count: int, budget: Budget, *, seed: int) -> Split:
    """Split ``count`` items at random: at most 30 % held out, a tenth of the attacker's share for validation.

    The budget caps the attacker's and the held-out items; what is left over is not used.

    Raises:
        DataError: if there are fewer than 40 items.
    """
    if count < MIN_ITEMS:
        raise DataError(f"data: an audit needs at least {MIN_ITEMS} items, found {count}")
    order = np.random.default_rng(seed).permutation(count)
    heldout = min(budget.heldout_items, int(count * _HELDOUT_SHARE))
    rest = order[heldout:]
    attacker = min(budget.attacker_items, int(len(rest) / (1 + _VALIDATION_SHARE)))
    validation = min(len(rest) - attacker, max(1, int(attacker * _VALIDATION_SHARE)))
    return Split(attacker=rest[:attacker], validation=rest[attacker : attacker + validation], heldout=order[:heldout])
