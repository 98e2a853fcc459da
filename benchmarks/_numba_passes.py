"""The passes of exact masks for numba: only to be measured, numba is no dependency."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from siniantrust.masking.exact._field import PRIME
from siniantrust.masking.exact._passes import (
    BLOCK,
    Mask,
    Moves,
    NumpyPasses,
    Results,
    Share,
    Unmask,
    Unmasking,
    Weigh,
)
from siniantrust.masking.exact._ring import NARROW_MOST

_jit: Any = numba.njit(boundscheck=False)


@_jit
def _mask(steps, pads, sent):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 - numba infers
    for i in range(len(steps)):
        total = np.int32(steps[i]) + (np.int32(pads[0, i]) | np.int32(pads[1, i]) << 8 | np.int32(pads[2, i]) << 16)
        sent[0, i] = total
        sent[1, i] = total >> 8
        sent[2, i] = total >> 16


@_jit
def _unmask(answers, pads, affine, weights, steps, sums):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 - numba infers
    _, channels, rows, width = answers.shape
    scale, bias = affine
    across, down, gather = weights
    results = np.empty(width, np.int32)
    low, high = np.float32(0), np.float32(127)
    for channel in range(channels):
        for row in range(rows):
            for i in range(width):
                result = np.int64(0)
                for limb in range(3):
                    apart = np.int64(answers[limb, channel, row, i]) - np.int64(pads[limb, channel, row, i])
                    result += apart << (8 * limb)
                result &= 2 * NARROW_MOST + 1
                result -= 2 * (NARROW_MOST + 1) if result > NARROW_MOST else 0
                results[i] = result
                value = np.float32(result) * scale[channel] + bias[channel]
                steps[channel, row, i] = np.int8(np.rint(min(max(value, low), high)))
            for r in range(len(across)):
                for start in range(0, width, BLOCK):
                    total = np.int64(0)
                    for i in range(start, min(start + BLOCK, width)):
                        total += np.int64(across[r, i]) * np.int64(results[i])
                    line = total % PRIME * down[r, row] % PRIME
                    sums[0, r] = (sums[0, r] + line * gather[r, channel]) % PRIME


@_jit
def _weigh(steps, across, down, factors, sums):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 - numba infers
    items, channels, rows, width = steps.shape
    for item in range(items):
        for r in range(len(across)):
            sums[item, r] = 0
        for channel in range(channels):
            for r in range(len(across)):
                for tap in range(across.shape[1]):
                    for row in range(rows):
                        line = np.int64(0)
                        for i in range(width):
                            line += np.int64(across[r, tap, i]) * np.int64(steps[item, channel, row, i])
                        line %= PRIME
                        for turn in range(down.shape[1]):
                            weight = down[r, turn, row] * factors[channel, r, turn, tap] % PRIME
                            sums[item, r] = (sums[item, r] + line * weight) % PRIME


class NumbaPasses(NumpyPasses):
    """One go over memory each, where the benchmark measures it; the rest in numpy."""

    name = "numba"

    def masker(self, steps: np.ndarray, sent: np.ndarray) -> Mask:
        """See ``Passes``, for the whole of an array."""
        return lambda item, _, pads: _mask(steps[item], pads, sent[item])

    def unmasker(self, form: Unmasking) -> Unmask:
        """See ``Passes``; a whole array, steps of values above zero, scaled by channel, with no sum."""
        weights = form.across, form.down, form.gather

        def unmask(of: Results) -> Share:
            def share(item: int, _: int, pads: np.ndarray) -> int:
                answers, steps = of.answers[item], None if of.steps is None else of.steps[item]
                affine = form.step_scale, form.step_bias
                _unmask(answers, pads.reshape(answers.shape), affine, weights, steps, of.sums[item])
                return 0

            return share

        return unmask

    def weigher(self, across: np.ndarray, down: np.ndarray, factors: np.ndarray, moves: Moves | None = None) -> Weigh:
        """See ``Passes``."""
        if moves is not None:
            return super().weigher(across, down, factors, moves)

        def weigh(steps: np.ndarray) -> np.ndarray:
            sums = np.empty((len(steps), len(across)), np.int64)
            _weigh(steps, across, down, factors, sums)
            return sums

        return weigh
