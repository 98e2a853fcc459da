"""What a search chooses among, and what it is to reach."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from siniantrust.errors import SinianError
from siniantrust.graph import Model, enumerate_cuts
from siniantrust.leakage import Budget
from siniantrust.masking._compose import MaskSpec, parse_mask
from siniantrust.masking._find_cut import find_cut
from siniantrust.masking._registry import list_masks
from siniantrust.masking.objectives import make_objective
from siniantrust.masking.retrain import Recipe

NONE = "none"
"""No mask, or no penalty."""

PENALTIES = (NONE, "within_class:weight=5")
"""What a search adds to the loss if it is not told."""

_BEHIND = "+"
_REIDENTIFICATION = "reidentification"
# A limit of zero would make every multiple infinite; below this it counts as this.
_LEAST_LIMIT = 1e-3
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

    def multiples(self, leakage: Mapping[str, float], lost_points: float) -> dict[str, float]:
        """Return every figure of a point as a multiple of its limit: at most 1 keeps to it."""
        limits = {name: self.reidentification if name == _REIDENTIFICATION else self.leakage for name in leakage}
        return {
            **{name: value / max(limits[name], _LEAST_LIMIT) for name, value in leakage.items()},
            "lost_points": lost_points / max(self.lost_points, _LEAST_LIMIT),
        }


@dataclass(frozen=True, slots=True)
class Search:
    """What a search chooses among for each trial.

    Attributes:
        cuts: the tensors of which one crosses.
        masks: what is put there: ``none``, a mask, or several joined by ``+``, the first next to the model. Masks are
            written as ``parse_mask`` reads them; those that name no strength, and can have any, get the one that is
            searched.
        weakest: the least strength that is searched.
        strongest: the greatest.
        kept_channels: shares of the channels of Part 1 of which one is kept.
        crossing_channels: shares of the channels that cross of which one is kept, by a bottleneck.
        penalties: objectives of which one is added to the loss, as ``make_objective`` reads them; ``none`` for none.
        most_lost_points: points of accuracy below the given model, beyond which a trial is given up before it is
            attacked; half-way through training it may be twice that.
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
    crossing_channels: tuple[float, ...] = (1.0, 0.25, 0.125, 0.0625)
    penalties: tuple[str, ...] = PENALTIES
    most_lost_points: float = 5.0
    recipe: Recipe = field(default_factory=lambda: Recipe(mode="joint", epochs=8, learning_rate=2e-3))
    budget: Budget = field(default_factory=Budget)
    attacks: tuple[str, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what can be checked without the model.

        Raises:
            TuneError: if there is nothing to choose from, or a figure is out of range.
            MaskError: if a mask or a penalty is written wrongly, or there is none of that name.
        """
        if not self.masks or not self.cuts or not self.penalties:
            raise TuneError(
                "search: expected at least one cut, one mask and one penalty; 'none' is a mask and a penalty"
            )
        for mask in self.masks:
            composition(mask, strength=self.weakest)
        for penalty in self.penalties:
            if penalty != NONE:
                make_objective(penalty)
        if not 0 < self.weakest <= self.strongest < math.inf:
            raise TuneError(f"search: expected 0 < weakest <= strongest, found {self.weakest} and {self.strongest}")
        for name in ("kept_channels", "crossing_channels"):
            if not getattr(self, name) or not all(0 < share <= 1 for share in getattr(self, name)):
                raise TuneError(f"search: {name} must be shares above 0 and up to 1, found {getattr(self, name)}")
        if self.recipe.mode != "joint":
            raise TuneError("search: each trial trains both parts; give a recipe of the mode 'joint'")


@dataclass(frozen=True, slots=True)
class Choice:
    """What one trial tries; see ``Search``."""

    cut: str
    mask: str
    strength: float
    kept_channels: float
    crossing_channels: float
    penalty: str


def composition(text: str, *, strength: float) -> tuple[MaskSpec, ...]:
    """Return the masks of ``text``, those that name no strength and can have any with this one.

    Raises:
        MaskError: if the text is of another form.
        TuneError: if there is no mask of a name.
    """
    known, found = list_masks(), []
    for part in () if text == NONE else text.split(_BEHIND):
        spec = parse_mask(part)
        if spec.name not in known:
            raise TuneError(f"search: mask {spec.name!r} is unknown; there are {', '.join([NONE, *known])}")
        searched = spec.strength is None and known[spec.name].any_strength
        found.append(replace(spec, strength=strength) if searched else spec)
    return tuple(found)


def has_strength(text: str) -> bool:
    """Return whether a mask of ``text`` takes the strength that is searched."""
    return composition(text, strength=1.0) != composition(text, strength=2.0)


def corners(search: Search) -> tuple[Choice, ...]:
    """Return where a search begins, since a few trials at random seldom meet a corner.

    At the last cut, where answers survive most: without a mask, for what the rest is held against; and each mask with
    the fewest channels across and the last penalty, at a middling strength. Then the last mask so at a middle cut, and
    with the fewest channels before it.
    """
    middle = math.sqrt(search.weakest * search.strongest)

    def corner(mask: str, cut: str, kept: float) -> Choice:
        strength = middle if has_strength(mask) else 0.0
        return Choice(cut, mask, strength, kept, min(search.crossing_channels), search.penalties[-1])

    widest, last = max(search.kept_channels), search.cuts[-1]
    bare = Choice(last, search.masks[0], 0.0, widest, max(search.crossing_channels), search.penalties[0])
    found = (
        *((bare,) if search.masks[0] == NONE else ()),
        *(corner(mask, last, widest) for mask in search.masks if mask != NONE),
        corner(search.masks[-1], search.cuts[len(search.cuts) // 2], widest),
        corner(search.masks[-1], last, min(search.kept_channels)),
    )
    return tuple(dict.fromkeys(found))


def defences() -> tuple[str, ...]:
    """Return no mask, the masks that are meant to be used and can have any strength, and noise behind few levels.

    Levels clip what crosses, so that training cannot outgrow the noise behind them.
    """
    chosen = (name for name, mask in list_masks().items() if mask.role == "defence" and mask.any_strength)
    return (NONE, *chosen, f"quantise:strength=1{_BEHIND}gaussian")


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
