"""What a search chooses among, and what it is to reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from siniantrust.errors import SinianError
from siniantrust.graph import Model, enumerate_cuts
from siniantrust.leakage import Budget
from siniantrust.masking._find_cut import find_cut
from siniantrust.masking._registry import list_masks
from siniantrust.masking.retrain import Recipe

NO_MASK = "none"
_WEAKEST, _STRONGEST = 0.05, 4.0


class TuneError(SinianError):
    """A search cannot be made as asked, or is another one than the folder holds."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a point must keep to.

    Attributes:
        leakage: highest upper bound of any metric but re-identification.
        reidentification: highest upper bound of re-identification.
        lost_points: points of accuracy that it may lose.
    """

    leakage: float = 0.15
    reidentification: float = 0.1
    lost_points: float = 1.0


@dataclass(frozen=True, slots=True)
class Search:
    """What a search chooses among for each trial.

    Attributes:
        cuts: the tensors of which one crosses.
        masks: the masks of which one is put there; ``none`` for no mask.
        weakest: the least strength of a mask.
        strongest: the greatest.
        kept_channels: shares of the channels of Part 1 of which one is kept.
        crossing_channels: shares of the channels that cross of which one is kept, by a bottleneck.
        recipe: how each trial is re-trained; its mode is ``joint``.
        budget: of the audit of each trial.
        attacks: names of the attacks; None for the suite.
        seed: of everything random.
    """

    cuts: tuple[str, ...]
    masks: tuple[str, ...]
    weakest: float = _WEAKEST
    strongest: float = _STRONGEST
    kept_channels: tuple[float, ...] = (1.0, 0.75, 0.5)
    crossing_channels: tuple[float, ...] = (1.0, 0.5, 0.25, 0.125)
    recipe: Recipe = field(default_factory=lambda: Recipe(mode="joint", epochs=8, learning_rate=2e-3))
    budget: Budget = field(default_factory=Budget)
    attacks: tuple[str, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what can be checked without the model.

        Raises:
            TuneError: if there is nothing to choose from, or a figure is out of range.
        """
        unknown = [name for name in self.masks if name != NO_MASK and name not in list_masks()]
        if unknown or not self.masks or not self.cuts:
            known = ", ".join([NO_MASK, *list_masks()])
            raise TuneError(f"search: expected cuts and masks out of {known}; found {self.cuts}, {self.masks}")
        if not 0 < self.weakest <= self.strongest < math.inf:
            raise TuneError(f"search: expected 0 < weakest <= strongest, found {self.weakest} and {self.strongest}")
        for name in ("kept_channels", "crossing_channels"):
            if not getattr(self, name) or not all(0 < share <= 1 for share in getattr(self, name)):
                raise TuneError(f"search: {name} must be shares above 0 and up to 1, found {getattr(self, name)}")
        if self.recipe.mode != "joint":
            raise TuneError("search: each trial trains both parts; give a recipe of the mode 'joint'")


def defences() -> tuple[str, ...]:
    """Return the masks that are meant to be used and can have any strength, and ``none``."""
    chosen = (name for name, mask in list_masks().items() if mask.role == "defence" and mask.any_strength)
    return (NO_MASK, *chosen)


def chosen_cuts(model: Model, names: Sequence[str]) -> tuple[str, ...]:
    """Return the tensors of the named cuts, or of all useful ones that a single floating tensor of channels crosses.

    Raises:
        MaskError: if a name is no cut.
        TuneError: if there are none, or several tensors cross.
    """
    if names:
        cuts = [find_cut(model, [name]) for name in names]
    else:
        cuts = [cut for cut in enumerate_cuts(model, max_tensors=1).cuts if not cut.fusable]
    ends = {output.name for output in model.outputs}
    found = []
    for cut in cuts:
        (tensor, *more) = cut.tensors
        usable = not more and tensor not in ends and model.tensors[tensor].dtype == "float32"
        if usable:
            found.append(tensor)
        elif names:
            raise TuneError(f"cut '{cut.id}': expected one float32 tensor that is no output of the model")
    if not found:
        raise TuneError(f"model '{model.name}': no single float32 tensor crosses at any useful cut")
    return tuple(found)
