"""What a mask is, and how it is found: one file each in ``masks``."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from siniantrust.masking._site import Site

Role = Literal["defence", "negative", "reference"]
"""A defence is meant to be used; a negative example only looks like one; a reference hides all, and the answer too."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number that a mask takes beside its strength."""

    name: str
    default: float
    meaning: str


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask: ``build(site)`` adds the nodes that compute the masked value from ``site.value``.

    Attributes:
        title: what to call it in a report.
        source: where it comes from.
        cost: what it takes to run and does to the model's answers.
        strength: what its strength is, and in which unit.
        random: whether it draws fresh random numbers for every query.
        role: whether it is a defence, a negative example or a reference.
        build: adds the mask's nodes.
        usual: a strength to begin with.
        any_strength: whether every strength above 0 can be had; else it is a share, or a whole number.
        parameters: what it takes beside its strength.
    """

    title: str
    source: str
    cost: str
    strength: str
    random: bool
    role: Role
    build: Callable[[Site], None]
    usual: float = 1.0
    any_strength: bool = True
    parameters: tuple[Parameter, ...] = ()


def list_masks() -> dict[str, Mask]:
    """Return all masks by name, sorted."""
    package = importlib.import_module("siniantrust.masking.masks")
    found: dict[str, Mask] = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        if info.name.startswith("_"):
            continue
        mask = getattr(importlib.import_module(f"{package.__name__}.{info.name}"), "MASK", None)
        if not isinstance(mask, Mask):
            raise TypeError(f"{package.__name__}.{info.name} must define MASK, a Mask")
        found[info.name] = mask
    return found
