"""The passes over large arrays: what they compute, in numpy, and which form of them this installation has.

``_kernels.c`` has the same passes, each in one go over memory; the tests hold the two together bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Protocol

import numpy as np

from siniantrust.masking.exact import _field

NOT_FINITE, DRAW_AGAIN = 1, 2
# So many products of 51 bits stay below 2^63.
BLOCK = 1 << 12
WEIGHT_BITS = 21

Mask = Callable[[slice, np.ndarray], int]
Unmask = Callable[[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray], np.ndarray]
Weigh = Callable[[np.ndarray], np.ndarray]


class Passes(Protocol):
    """What the trusted side does with large arrays; all of them lie contiguous in memory."""

    name: str

    def masker(self, values: np.ndarray, scale: float, sent: np.ndarray, steps: np.ndarray) -> Mask:
        """Return the pass that quantises a share of an array and adds pads.

        It takes the share, a slice, and uint32 words for it, of which 31 bits make a pad each. It returns NOT_FINITE
        where a value is not, DRAW_AGAIN where a word makes no residue, or both; else 0.

        Args:
            values: float32 (count,).
            scale: what one step is worth.
            sent: uint32 (count,), gets residues.
            steps: int8 (count,), gets the quantised values.
        """
        ...

    def unmasker(
        self,
        scale: np.ndarray,
        bias: np.ndarray,
        *,
        by_column: bool,
        relu: bool,
        across: np.ndarray,
        down: np.ndarray,
    ) -> Unmask:
        """Return the pass that takes off corrections, adds up what a check needs, and makes floats.

        It takes answers and corrections, uint32 (channels, rows, width), float32 values to be added or None, and where
        float32 values go, all of that shape. It returns int64 residues (repetitions, channels): each channel's results,
        summed with weights.

        Args:
            scale: float32, what one step of the result is worth, by column or by channel (repeating).
            bias: float32, as ``scale``.
            by_column: whether they go with the column.
            relu: whether values below zero become zero.
            across: int32 (repetitions, width), weights below 2^21.
            down: int64 (repetitions, rows), weights, residues.
        """
        ...

    def weigher(self, across: np.ndarray, down: np.ndarray) -> Weigh:
        """Return the pass that sums quantised values, int8 (channels, rows, width), with weights.

        It returns int64 residues (channels, repetitions, down taps, across taps).

        Args:
            across: int32 (repetitions, across taps, width), below 2^21.
            down: int64 (repetitions, down taps, rows), residues.
        """
        ...


class NumpyPasses:
    """Several goes over memory each."""

    name = "numpy"

    def masker(self, values: np.ndarray, scale: float, sent: np.ndarray, steps: np.ndarray) -> Mask:
        """See ``Passes``."""

        def mask(share: slice, words: np.ndarray) -> int:
            if not np.isfinite(values[share]).all():
                return NOT_FINITE
            pads = words & np.uint32(_field.PRIME)
            with np.errstate(over="ignore"):  # what becomes infinite is clipped like what is merely large
                rounded = np.rint(values[share] * np.float32(1 / scale))
            steps[share] = np.clip(rounded, -_field.QUANTISED_MAX, _field.QUANTISED_MAX)
            sent[share] = _field.masked(steps[share], pads)
            return DRAW_AGAIN if (pads == _field.PRIME).any() else 0

        return mask

    def unmasker(
        self,
        scale: np.ndarray,
        bias: np.ndarray,
        *,
        by_column: bool,
        relu: bool,
        across: np.ndarray,
        down: np.ndarray,
    ) -> Unmask:
        """See ``Passes``."""
        shape = (-1,) if by_column else (-1, 1, 1)
        weights = across.T.astype(np.int64)

        def unmask(
            answers: np.ndarray, corrections: np.ndarray, addend: np.ndarray | None, values: np.ndarray
        ) -> np.ndarray:
            results = _field.unmasked(answers, corrections)
            grouped = results if by_column else results.reshape(-1, len(scale), *results.shape[1:])
            finished = grouped.astype(np.float32) * scale.reshape(shape)
            finished += bias.reshape(shape)
            values[:] = finished.reshape(results.shape)
            if addend is not None:
                values += addend
            if relu:
                np.maximum(values, 0, out=values)
            lines = _lines(results, weights)
            sums: np.ndarray = (lines * down.T % _field.PRIME).sum(axis=1).T % _field.PRIME
            return sums

        return unmask

    def weigher(self, across: np.ndarray, down: np.ndarray) -> Weigh:
        """See ``Passes``."""
        repetitions, taps, width = across.shape
        weights = across.reshape(-1, width).T.astype(np.int64)

        def weigh(steps: np.ndarray) -> np.ndarray:
            lines = _lines(steps, weights).reshape(*steps.shape[:2], repetitions, 1, taps)
            sums: np.ndarray = (lines * down.transpose(2, 0, 1)[..., None] % _field.PRIME).sum(axis=1) % _field.PRIME
            return sums

        return weigh


def _lines(numbers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return each row of (channels, rows, width) times each of the weights (width, count), modulo the prime."""
    total = np.zeros((), dtype=np.int64)
    for start in range(0, numbers.shape[2], BLOCK):
        share = numbers[..., start : start + BLOCK].astype(np.int64)
        total = (total + share @ weights[start : start + BLOCK]) % _field.PRIME
    return total


@cache
def best_passes() -> Passes:
    """Return the compiled passes where this installation has them, those in numpy where not."""
    from siniantrust.masking.exact._native import load_native

    return load_native() or NumpyPasses()
