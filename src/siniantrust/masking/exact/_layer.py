"""A linear layer with constant weights, as integers: what a device may compute under a pad."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from siniantrust.errors import PlanError
from siniantrust.masking.exact import _ring

# Freivalds' check adds this many products below 2^37 in float64.
MOST_TERMS = 1 << 15
# What a layer gives, and a sum with another one, stay finite in float32 by far.
_MOST_FLOAT = 1e37


@dataclass(frozen=True, slots=True)
class Window:
    """How a convolution slides: per axis, for two axes (height, width). A matrix product has none."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]


@dataclass(frozen=True)
class Layer:
    """A quantised linear layer: ``round(x / input_scale)`` times ``weight``, then ``* scale + bias`` per output row.

    Attributes:
        name: the node's name.
        entry: the float value that it reads.
        exit: the float value that it makes.
        weight: int8, (rows, channels, height, width) for a convolution and (rows, columns) for a matrix product.
        bias: float32 (rows,).
        input_scale: what one step of the quantised input is worth.
        row_scales: float32 (rows,), what one step of each row's weights is worth.
        window: how a convolution slides, None for a matrix product over the last axis.
    """

    name: str
    entry: str
    exit: str
    weight: np.ndarray = field(repr=False)
    bias: np.ndarray = field(repr=False)
    input_scale: float
    row_scales: np.ndarray = field(repr=False)
    window: Window | None

    @property
    def rows(self) -> int:
        """Outputs per position."""
        return int(self.weight.shape[0])

    @property
    def terms(self) -> int:
        """Products that one output is the sum of."""
        return math.prod(self.weight.shape[1:])

    @property
    def scale(self) -> np.ndarray:
        """What one step of each row's integer result is worth, float32 (rows,)."""
        return (self.row_scales * np.float32(self.input_scale)).astype(np.float32)

    def check(self) -> None:
        """Prove that no sum of it overflows on a device or wraps when it is read back.

        Raises:
            PlanError: naming the layer and the bound that it breaks.
        """
        if self.weight.dtype != np.int8 or self.weight.min(initial=0) < -_ring.QUANTISED_MAX:
            raise PlanError(f"layer '{self.name}': expected int8 weights from -127 on, found {self.weight.dtype}")
        if self.terms > MOST_TERMS:
            raise PlanError(
                f"layer '{self.name}': {self.terms} products in one sum, the check of a device's work adds at most "
                f"{MOST_TERMS} of them exactly; keep it in the enclave"
            )
        _ring.limbs_for(self.name, self.most)
        with np.errstate(over="ignore", invalid="ignore"):  # what is too large is what is looked for
            largest = float(np.abs(self.scale).max(initial=0)) * _ring.MOST + float(np.abs(self.bias).max(initial=0))
        if not (0 < self.input_scale < np.inf and 0 < 1 / self.input_scale < _MOST_FLOAT and largest < _MOST_FLOAT):
            raise PlanError(
                f"layer '{self.name}': its results may reach {largest:.3g} in steps of {self.input_scale:.3g}, and "
                f"float32 is relied on up to {_MOST_FLOAT:.3g} only; keep it in the enclave"
            )

    @cached_property
    def most(self) -> int:
        """The largest magnitude that a result can reach."""
        flat = self.weight.reshape(self.rows, -1)
        sums = (int(np.abs(row.astype(np.int64)).sum()) for row in flat)
        return max(sums, default=0) * _ring.QUANTISED_MAX

    @property
    def limbs(self) -> int:
        """How many bytes its numbers need at least. Raises PlanError as ``check``."""
        return _ring.limbs_for(self.name, self.most)

    def chunks(self, limbs: int) -> list[slice]:
        """Return how the products of numbers of so many bytes are split so that float64 adds each share exactly."""
        most = _ring.most_terms(limbs, int(np.abs(self.weight.astype(np.int64)).max(initial=0)))
        return [slice(start, min(start + most, self.terms)) for start in range(0, self.terms, most)]
