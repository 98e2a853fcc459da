"""What a restructuring pass is, and how it is found: one file each in ``passes``."""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx

from siniantrust.errors import SinianError
from siniantrust.graph import Cut, Model


class RestructureError(SinianError):
    """A pass is unknown, has an amount out of range, or finds nothing to change before this cut of this model."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that is to be changed before a cut, and what it is told by.

    Attributes:
        model: the model.
        cut: the cut, which one tensor crosses.
        inputs: some items for each of the model's inputs; what a pass learns, it learns from them.
        amount: how much, in the pass's own unit.
    """

    model: Model
    cut: Cut
    inputs: Mapping[str, np.ndarray] = field(repr=False)
    amount: float

    @property
    def tensor(self) -> str:
        """Name of the tensor that crosses."""
        return self.cut.tensors[0]


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What a pass made: a model of the same inputs and outputs, what crosses in it, and a line on each change."""

    proto: onnx.ModelProto = field(repr=False)
    tensor: str
    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass.

    Attributes:
        title: what to call it.
        source: where it comes from.
        amount: what its amount means.
        default: the amount if none is given; None if one must be.
        lowest: the least amount.
        highest: the greatest amount.
        run: rewrites the model.
    """

    title: str
    source: str
    amount: str
    default: float | None
    lowest: float
    highest: float
    run: Callable[[Subject], Rewritten]


@dataclass(frozen=True, slots=True)
class Step:
    """A pass by name with its amount."""

    name: str
    amount: float

    def __str__(self) -> str:
        """Return it as ``parse_step`` reads it."""
        return f"{self.name}={self.amount:g}"


def list_passes() -> dict[str, Pass]:
    """Return all passes by name, sorted."""
    package = importlib.import_module("siniantrust.masking.restructure.passes")
    found: dict[str, Pass] = {}
    for name in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
        made = getattr(importlib.import_module(f"{package.__name__}.{name}"), "PASS", None)
        if not isinstance(made, Pass):
            raise TypeError(f"{package.__name__}.{name} must define PASS, a Pass")
        found[name] = made
    return found


def parse_step(text: str) -> Step:
    """Read ``NAME`` or ``NAME=AMOUNT``.

    Raises:
        RestructureError: if the pass is unknown, needs an amount, or the amount is out of range.
    """
    name, separator, given = text.partition("=")
    passes = list_passes()
    if name not in passes:
        raise RestructureError(f"pass '{name}' is unknown; there are {', '.join(passes)}")
    found = passes[name]
    try:
        amount = float(given) if separator else found.default
    except ValueError:
        amount = math.nan
    if amount is None or not found.lowest <= amount <= found.highest:
        raise RestructureError(
            f"pass '{text}': expected {name}=AMOUNT, {found.lowest:g} to {found.highest:g}, {found.amount}"
        )
    return Step(name, amount)
