"""Objectives by name, as the command line gives them."""

from __future__ import annotations

from collections.abc import Callable

from siniantrust.masking._compose import parse_mask
from siniantrust.masking._site import MaskError
from siniantrust.masking.objectives._adversarial import Adversarial
from siniantrust.masking.objectives._nopeek import NoPeek
from siniantrust.masking.objectives._within_class import WithinClass

_MAKERS: dict[str, Callable[[float], Adversarial | NoPeek | WithinClass]] = {
    "adversarial": Adversarial,
    "nopeek": NoPeek,
    "within_class": WithinClass,
}
OBJECTIVES = tuple(_MAKERS)


def make_objective(text: str) -> Adversarial | NoPeek | WithinClass:
    """Return the objective of ``NAME`` or ``NAME:weight=NUMBER``.

    Raises:
        MaskError: if there is none of that name, or it is given anything but a weight above 0.
    """
    spec = parse_mask(text)
    if spec.name not in OBJECTIVES:
        raise MaskError(f"penalty {spec.name!r} is unknown; there are {', '.join(OBJECTIVES)}")
    weight = spec.parameters.get("weight", 1.0)
    if spec.parameters.keys() - {"weight"} or spec.strength is not None or not weight > 0:
        raise MaskError(f"penalty {text!r}: it takes a weight above 0 and nothing else")
    return _MAKERS[spec.name](weight)
