"""The passes of exact masks for numba: only to be measured, numba is no dependency."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from siniantrust.masking.exact._field import HALF, PRIME
from siniantrust.masking.exact._passes import BLOCK, DRAW_AGAIN, Results, Unmask, Unmasking, Weigh
from siniantrust.masking.exact._pool import Pool

_jit: Any = numba.njit(boundscheck=False)


@_jit
def _mask(steps, words, sent):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 - numba infers
    again = False
    for i in range(len(steps)):
        pad = np.int64(words[i] & np.uint32(PRIME))
        again |= pad == PRIME
        total = pad + steps[i]
        total += PRIME if total < 0 else 0
        sent[i] = total - PRIME if total >= PRIME else total
    return again


@_jit
def _unmask(answers, sealed, words, affine, weights, steps, sums):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 - numba infers
    channels, rows, width = answers.shape
    scale, bias, inverse = affine
    across, down, gather = weights
    results = np.empty(width, np.int32)
    low, high = np.float32(0), np.float32(127)
    again = False
    for channel in range(channels):
        for row in range(rows):
            for i in range(width):
                answer, other = np.int64(answers[channel, row, i]), np.int64(sealed[channel, row, i])
                word = np.int64(words[channel, row, i] & np.uint32(PRIME))
                again |= word == PRIME
                result = (answer & PRIME) + (answer >> 31) + (other & PRIME) + (other >> 31) - word
                result -= PRIME if result > HALF else 0
                result -= PRIME if result > HALF else 0
                result += PRIME if result < -HALF else 0
                results[i] = result
                value = np.float32(result) * scale[channel] + bias[channel]
                steps[channel, row, i] = np.int8(np.rint(min(max(value * inverse, low), high)))
            for r in range(len(across)):
                for start in range(0, width, BLOCK):
                    total = np.int64(0)
                    for i in range(start, min(start + BLOCK, width)):
                        total += np.int64(across[r, i]) * np.int64(results[i])
                    line = total % PRIME * down[r, row] % PRIME
                    sums[0, r] = (sums[0, r] + line * gather[r, channel]) % PRIME
    return again


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


class NumbaPasses:
    """One go over memory each; what the benchmark measures, and no more."""

    name = "numba"

    def quantise(self, values: np.ndarray, scale: float, steps: np.ndarray) -> int:
        """See ``Passes``."""
        raise NotImplementedError

    def pool(self, steps: np.ndarray, pool: Pool, pooled: np.ndarray) -> None:
        """See ``Passes``."""
        raise NotImplementedError

    def mask(self, steps: np.ndarray, words: np.ndarray, sent: np.ndarray) -> int:
        """See ``Passes``."""
        return DRAW_AGAIN if _mask(steps, words, sent) else 0

    def unmasker(self, form: Unmasking) -> Unmask:
        """See ``Passes``; steps of values above zero, scaled by channel, with no sum."""
        weights = form.across, form.down, form.gather

        def unmask(of: Results) -> Callable[[slice, np.ndarray], int]:
            def share(channels: slice, words: np.ndarray) -> int:
                arrays = of.answers[channels], of.sealed[channels], words.reshape(of.answers[channels].shape)
                affine = form.scale[channels], form.bias[channels], np.float32(form.inverse)
                return DRAW_AGAIN if _unmask(*arrays, affine, weights, of.steps, of.sums) else 0

            return share

        return unmask

    def weigher(self, across: np.ndarray, down: np.ndarray, factors: np.ndarray) -> Weigh:
        """See ``Passes``."""

        def weigh(steps: np.ndarray) -> np.ndarray:
            sums = np.empty((len(steps), len(across)), np.int64)
            _weigh(steps, across, down, factors, sums)
            return sums

        return weigh
