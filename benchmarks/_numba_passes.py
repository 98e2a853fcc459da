"""The passes of exact masks for numba: only to be measured, numba is no dependency."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from siniantrust.masking.exact._field import HALF, PRIME
from siniantrust.masking.exact._passes import BLOCK, DRAW_AGAIN, NOT_FINITE, Mask, Unmask, Weigh

_jit: Any = numba.njit(boundscheck=False)


@_jit
def _mask(values, words, inverse, sent, steps):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 - numba infers
    finite, again = True, False
    low, high = np.float32(-127), np.float32(127)
    for i in range(len(values)):
        scaled = values[i] * inverse
        finite &= np.isfinite(values[i])
        step = np.int32(np.rint(min(max(scaled, low), high)))
        steps[i] = step
        pad = np.int64(words[i] & np.uint32(PRIME))
        again |= pad == PRIME
        total = pad + step
        total += PRIME if total < 0 else 0
        sent[i] = total - PRIME if total >= PRIME else total
    return finite, again


@_jit
def _unmask(answers, corrections, scale, bias, relu, weights, values, sums):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 - numba infers
    channels, rows, width = answers.shape
    across, down = weights
    results = np.empty(width, np.int32)
    for channel in range(channels):
        for r in range(len(across)):
            sums[r, channel] = 0
        for row in range(rows):
            for i in range(width):
                answer, correction = np.int64(answers[channel, row, i]), np.int64(corrections[channel, row, i])
                result = (answer & PRIME) + (answer >> 31) - (correction & PRIME) - (correction >> 31)
                result += PRIME if result < -HALF else 0
                result -= PRIME if result > HALF else 0
                results[i] = result
                value = np.float32(result) * scale[channel] + bias[channel]
                values[channel, row, i] = max(value, np.float32(0)) if relu else value
            for r in range(len(across)):
                for start in range(0, width, BLOCK):
                    total = np.int64(0)
                    for i in range(start, min(start + BLOCK, width)):
                        total += np.int64(across[r, i]) * np.int64(results[i])
                    sums[r, channel] = (sums[r, channel] + total % PRIME * down[r, row]) % PRIME


@_jit
def _weigh(steps, across, down, sums):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 - numba infers
    channels, rows, width = steps.shape
    for channel in range(channels):
        for r in range(len(across)):
            for turn in range(down.shape[1]):
                for tap in range(across.shape[1]):
                    total = np.int64(0)
                    for row in range(rows):
                        line = np.int64(0)
                        for i in range(width):
                            line += np.int64(across[r, tap, i]) * np.int64(steps[channel, row, i])
                        total = (total + line % PRIME * down[r, turn, row]) % PRIME
                    sums[channel, r, turn, tap] = total


class NumbaPasses:
    """One go over memory each; scales by channel, no sum with other values: what the benchmark measures."""

    name = "numba"

    def masker(self, values: np.ndarray, scale: float, sent: np.ndarray, steps: np.ndarray) -> Mask:
        """See ``Passes``."""

        def mask(share: slice, words: np.ndarray) -> int:
            finite, again = _mask(values[share], words, np.float32(1 / scale), sent[share], steps[share])
            return (0 if finite else NOT_FINITE) | (DRAW_AGAIN if again else 0)

        return mask

    def unmasker(
        self, scale: np.ndarray, bias: np.ndarray, *, by_column: bool, relu: bool, across: np.ndarray, down: np.ndarray
    ) -> Unmask:
        """See ``Passes``."""
        if by_column:
            raise NotImplementedError("scales by channel only")

        def unmask(
            answers: np.ndarray, corrections: np.ndarray, _addend: np.ndarray | None, values: np.ndarray
        ) -> np.ndarray:
            sums = np.empty((len(across), len(answers)), np.int64)
            _unmask(answers, corrections, scale, bias, relu, (across, down), values, sums)
            return sums

        return unmask

    def weigher(self, across: np.ndarray, down: np.ndarray) -> Weigh:
        """See ``Passes``."""

        def weigh(steps: np.ndarray) -> np.ndarray:
            sums = np.empty((len(steps), len(across), down.shape[1], across.shape[1]), np.int64)
            _weigh(steps, across, down, sums)
            return sums

        return weigh
