"""The passes over large arrays: what they compute, in numpy, and which form of them this installation has.

``_kernels.c`` has the same passes, each in one go over memory; the tests hold the two together bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np

from siniantrust.masking.exact import _ring
from siniantrust.masking.exact._field import PRIME
from siniantrust.masking.exact._pool import Pool

NOT_FINITE, OUT_OF_RANGE = 1, 2
# So many products of 53 bits stay below 2^63.
BLOCK = 1 << 9
WEIGHT_BITS = 21
# What the compiled pass has room for: see ``_kernels.c``.
MOST_TAPS, MOST_EDGE, MOST_WIDTH = 8, 8, 1024


@dataclass(frozen=True, eq=False)
class Unmasking:
    """What unmasking does in one layer, whose results are (channels, rows, width) for one item.

    Attributes:
        scale: float32, what one step of the result is worth: (width,) where ``by_column``, else (period,), by channel.
        bias: float32, as ``scale``.
        by_column: whether they go with the column.
        across: int32 (repetitions, width), the check's weights, below 2^21; below 2^30 in magnitude for three limbs.
        down: int64 (repetitions, rows), its weights, residues.
        gather: int64 (repetitions, period), its weights, residues; so many channels make one sum.
        limbs: how many bytes a number has.
        most: no right result is beyond it. It is looked at where there are four limbs: with three, no number is so
            large that an error of it would vanish modulo the prime.
        relu: whether values below zero become zero.
        inverse: one over what a step of the values is worth, where they are quantised.

    Values that are wanted as steps alone are worked out in steps: ``step_scale`` and ``step_bias`` are what scale and
    bias are of them.
    """

    scale: np.ndarray
    bias: np.ndarray
    by_column: bool
    across: np.ndarray
    down: np.ndarray
    gather: np.ndarray
    limbs: int
    most: int
    relu: bool = False
    inverse: float = 1.0

    @property
    def step_scale(self) -> np.ndarray:
        """See above, float32."""
        return self.scale * np.float32(self.inverse)

    @property
    def step_bias(self) -> np.ndarray:
        """See above, float32."""
        return self.bias * np.float32(self.inverse)


@dataclass(frozen=True, eq=False)
class Moves:
    """How the weights of a kernel's columns follow from one row of weights, where these are powers of one number.

    Attributes:
        weights: int64 (repetitions, taps), residues: what the row is multiplied by.
        head: int64 (taps,), how many columns at the beginning a tap does not see.
        tail: int64 (taps,), how many at the end.
    """

    weights: np.ndarray
    head: np.ndarray
    tail: np.ndarray


@dataclass(frozen=True, eq=False)
class Results:
    """The arrays of items that unmasking reads and writes, each in any shape of (channels, rows, width) numbers.

    Attributes:
        answers: uint8 (items, limbs, ...): a device's, with the sealed corrections added.
        sums: int64 (items, channels / period, repetitions), residues: each channel's results, weighted, are added.
        added: values (items, ...) that are added, float32 or int8 steps, or None.
        added_scale: what one of ``added`` is worth.
        values: float32 (items, ...), gets values, where wanted.
        steps: int8 (items, ...), gets quantised values, where wanted.
    """

    answers: np.ndarray
    sums: np.ndarray
    added: np.ndarray | None = None
    added_scale: float = 1.0
    values: np.ndarray | None = None
    steps: np.ndarray | None = None


Share = Callable[[int, int, np.ndarray], int]
Unmask = Callable[[Results], Share]
Mask = Callable[[int, int, np.ndarray], None]
Weigh = Callable[[np.ndarray], np.ndarray]


class Passes(Protocol):
    """What the trusted side does with large arrays; all of them lie contiguous in memory.

    What says that it returns flags gives NOT_FINITE where a value was not, OUT_OF_RANGE where a result is beyond what a
    right one can be, both, or 0.
    """

    name: str

    def quantise(self, values: np.ndarray, scale: float, steps: np.ndarray) -> int:
        """Put float32 ``values``, in steps of ``scale``, into ``steps`` (int8), and return flags."""
        ...

    def add(self, first: np.ndarray, second: np.ndarray, made: np.ndarray) -> None:
        """Put the sums of numbers, uint8 (limbs, count) each, into ``made``."""
        ...

    def masker(self, steps: np.ndarray, sent: np.ndarray) -> Mask:
        """Return the pass that puts ``steps``, int8 (items, count), plus pads into ``sent``, uint8 (items, limbs, -1).

        It works on a share of an item, from one number on, with the pads of this share alone, uint8 (limbs, numbers).
        """
        ...

    def pool(self, steps: np.ndarray, pool: Pool, pooled: np.ndarray) -> None:
        """Put the largest of each window of ``steps`` (int8, channels, height, width) into ``pooled``."""
        ...

    def unmasker(self, form: Unmasking) -> Unmask:
        """Return the pass that takes pads off answers, adds up what a check needs, and finishes values.

        For the arrays of several items it returns what works on a share of an item's channels, from one on, with the
        pads of this share alone, uint8 (limbs, numbers); that returns flags.
        """
        ...

    def weigher(self, across: np.ndarray, down: np.ndarray, factors: np.ndarray, moves: Moves | None = None) -> Weigh:
        """Return the pass that sums up quantised inputs, int8 (items, channels, rows, width), with weights.

        It returns int64 residues (items, repetitions).

        Args:
            across: int32 (repetitions, across taps, width), below 2^21; with ``moves`` of one tap, and below 2^30 in
                magnitude.
            down: int64 (repetitions, down taps, rows), residues.
            factors: int64 (channels, repetitions, down taps, across taps), residues.
            moves: how the other taps' weights follow from the first one's.
        """
        ...


class NumpyPasses:
    """Several goes over memory each."""

    name = "numpy"

    def quantise(self, values: np.ndarray, scale: float, steps: np.ndarray) -> int:
        """See ``Passes``."""
        if not np.isfinite(values).all():
            return NOT_FINITE
        _quantise(values, float(np.float32(1 / scale)), steps)
        return 0

    def add(self, first: np.ndarray, second: np.ndarray, made: np.ndarray) -> None:
        """See ``Passes``."""
        made[:] = _ring.plus(first, second)

    def masker(self, steps: np.ndarray, sent: np.ndarray) -> Mask:
        """See ``Passes``."""

        def mask(item: int, start: int, pads: np.ndarray) -> None:
            share = slice(start, start + pads.shape[1])
            sent[item, :, share] = _ring.plus(_ring.to_limbs(steps[item, share], len(pads), axis=0), pads)

        return mask

    def pool(self, steps: np.ndarray, pool: Pool, pooled: np.ndarray) -> None:
        """See ``Passes``."""
        reach = [(size - 1) * stride + 1 for size, stride in zip(pooled.shape[1:], pool.strides, strict=True)]
        wide = np.full((len(steps), *(r + k for r, k in zip(reach, pool.kernel, strict=True))), -128, np.int8)
        top, left = pool.pads[:2]
        inside = wide[:, top : top + steps.shape[1], left : left + steps.shape[2]]
        inside[:] = steps[:, : inside.shape[1], : inside.shape[2]]
        pooled[:] = -128
        for row in range(pool.kernel[0]):
            for column in range(pool.kernel[1]):
                tap = wide[:, row : row + reach[0] : pool.strides[0], column : column + reach[1] : pool.strides[1]]
                np.maximum(pooled, tap, out=pooled)

    def unmasker(self, form: Unmasking) -> Unmask:
        """See ``Passes``."""
        period = form.gather.shape[1]
        shape = (-1,) if form.by_column else (-1, 1, 1)
        weights = form.across.T.astype(np.int64)

        def unmask(of: Results) -> Share:
            items = len(of.answers)
            rows_wide = (items, -1, form.down.shape[1], form.across.shape[1])
            whole = of.answers.reshape(items, form.limbs, *rows_wide[1:])
            arrays = (of.added, of.values, of.steps)
            all_added, all_values, all_steps = (None if array is None else array.reshape(rows_wide) for array in arrays)
            scale, bias, added_scale = form.scale, form.bias, np.float32(of.added_scale)
            if all_values is None:
                scale, bias, added_scale = form.step_scale, form.step_bias, added_scale * np.float32(form.inverse)

            def share(item: int, first: int, pads: np.ndarray) -> int:
                pads = pads.reshape(form.limbs, *rows_wide[1:])
                channels = slice(first, first + pads.shape[1])
                results = _ring.from_limbs(_ring.minus(whole[item, :, channels], pads))
                in_range = form.limbs == _ring.NARROW or not np.any(np.abs(results.astype(np.int64)) > form.most)
                numbers = np.arange(channels.start, channels.start + len(results))
                rows = slice(None) if form.by_column else numbers % period
                values = results.astype(np.float32) * scale[rows].reshape(shape)
                values += bias[rows].reshape(shape)
                if all_added is not None:
                    values += all_added[item, channels] * added_scale
                finite = np.isfinite(values).all()
                if form.relu:
                    np.maximum(values, 0, out=values)
                if all_values is not None:
                    all_values[item, channels] = values
                if all_steps is not None:
                    inverse = 1.0 if all_values is None else form.inverse
                    _quantise(values, inverse, all_steps[item, channels])
                lines = _lines(results, weights)
                totals = (lines * form.down.T % PRIME).sum(axis=1) % PRIME
                sums = of.sums[item]
                np.add.at(sums, numbers // period, totals * form.gather.T[numbers % period] % PRIME)
                np.remainder(sums, PRIME, out=sums)
                return (0 if finite else NOT_FINITE) | (0 if in_range else OUT_OF_RANGE)

            return share

        return unmask

    def weigher(self, across: np.ndarray, down: np.ndarray, factors: np.ndarray, moves: Moves | None = None) -> Weigh:
        """See ``Passes``."""
        whole = across if moves is None else _moved(across[:, 0], moves)
        repetitions, taps, width = whole.shape
        weights = whole.reshape(-1, width).T.astype(np.int64)

        def weigh(steps: np.ndarray) -> np.ndarray:
            sums = np.empty((len(steps), repetitions), np.int64)
            for item, image in enumerate(steps):
                lines = _lines(image, weights).reshape(*image.shape[:2], repetitions, 1, taps)
                turned = lines * down.transpose(2, 0, 1)[..., None] % PRIME
                each = turned.sum(axis=1) % PRIME * factors % PRIME
                sums[item] = each.sum(axis=(0, 2, 3)) % PRIME
            return sums

        return weigh


def _moved(across: np.ndarray, moves: Moves) -> np.ndarray:
    """Return every tap's weights (repetitions, taps, width), residues, of one row's (repetitions, width)."""
    whole = across[:, None].astype(np.int64) * moves.weights[..., None] % PRIME
    columns = np.arange(across.shape[1])
    seen = (columns >= moves.head[:, None]) & (columns < len(columns) - moves.tail[:, None])
    return np.where(seen, whole, 0)


def _quantise(values: np.ndarray, inverse: float, steps: np.ndarray) -> None:
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is clipped like what is merely large
        rounded = np.rint(values * np.float32(inverse))
        steps[:] = np.clip(rounded, -_ring.QUANTISED_MAX, _ring.QUANTISED_MAX)


def _lines(numbers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return each row of (channels, rows, width) times each of the weights (width, count), modulo the prime."""
    total = np.zeros((), dtype=np.int64)
    for start in range(0, numbers.shape[2], BLOCK):
        share = numbers[..., start : start + BLOCK].astype(np.int64)
        total = (total + share @ weights[start : start + BLOCK]) % PRIME
    return total


@cache
def best_passes() -> Passes:
    """Return the compiled passes where this installation has them, those in numpy where not."""
    from siniantrust.masking.exact._native import load_native

    return load_native() or NumpyPasses()
