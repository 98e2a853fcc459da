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


def split_items(count: int, budget: Budget, *, seed: int, marked: np.ndarray | None = None) -> Split:
    """Split ``count`` items at random: at most 30 % held out, a tenth of the attacker's share for validation.

    The budget caps the held-out items and, with all its doublings, the attacker's; what is left over is not used.
    ``marked`` (count,), boolean, says which items are held out, instead of chance.

    Raises:
        DataError: if there are fewer than 40 items, or ``marked`` leaves fewer than 20 on either side.
    """
    if count < MIN_ITEMS:
        raise DataError(f"data: an audit needs at least {MIN_ITEMS} items, found {count}")
    order = np.random.default_rng(seed).permutation(count)
    if marked is None:
        border = int(count * _HELDOUT_SHARE)
        held, rest = order[:border], order[min(budget.heldout_items, border) :]
    else:
        held, rest = order[marked[order]], order[~marked[order]]
        if min(len(held), len(rest)) < MIN_ITEMS // 2:
            raise DataError(
                f"data: heldout marks {len(held)} of {count} items; expected at least {MIN_ITEMS // 2} on either side"
            )
    attacker = min(budget.attacker_items << budget.max_doublings, int(len(rest) / (1 + _VALIDATION_SHARE)))
    validation = min(len(rest) - attacker, max(1, int(attacker * _VALIDATION_SHARE)))
    return Split(
        attacker=rest[:attacker],
        validation=rest[attacker : attacker + validation],
        heldout=held[: budget.heldout_items],
    )
