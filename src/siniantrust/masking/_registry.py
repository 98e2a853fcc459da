"""What a mask is, and how it is found: one file each in ``masks``."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from siniantrust.errors import SinianError
from siniantrust.masking._site import Site

Role = Literal["defence", "negative", "reference"]
"""A defence is meant to be used; a negative example only looks like one; a reference hides all, and the answer too."""


class MaskError(SinianError):
    """A mask is unknown, or cannot be put at this place of this model."""


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask: ``build(site)`` adds the nodes that compute the masked value from ``site.value``; the last one makes it.

    Attributes:
        title: what to call it in a report.
        source: where it comes from.
        cost: what it takes to run and does to the model's answers.
        random: whether it draws fresh random numbers for every query.
        role: whether it is a defence, a negative example or a reference.
        build: adds the mask's nodes.
    """

    title: str
    source: str
    cost: str
    random: bool
    role: Role
    build: Callable[[Site], None]


def list_masks() -> dict[str, Mask]:
    """Return all masks by name, sorted."""
    package = importlib.import_module("siniantrust.masking.masks")
    found: dict[str, Mask] = {}
    for name in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
        mask = getattr(importlib.import_module(f"{package.__name__}.{name}"), "MASK", None)
        if not isinstance(mask, Mask):
            raise TypeError(f"{package.__name__}.{name} must define MASK, a Mask")
        found[name] = mask
    return found
