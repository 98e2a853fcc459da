"""Freivalds' check that a device computed a layer, against what the enclave itself knows.

Freivalds (IFIP 1977): to check Z = W X, draw a random row vector s and compare s Z with (s W) X. Slalom does so on
masked values; here it is done on the numbers behind the pad, which are small, so that nothing overflows: with
Z = answer - u modulo p, an honest device gives Z = W X exactly, and any other answer differs from it by residues that s
catches unless s, each number drawn from 2^k values, solves one linear equation modulo p: with probability at most 2^-k
(Schwartz and Zippel).
"""

from __future__ import annotations

import math
import secrets

import numpy as np

from siniantrust.masking.exact import _field
from siniantrust.masking.exact._layer import Layer

DEFAULT_SOUNDNESS_BITS = 40
# Of one secret number: sums with results of up to 30 bits over this many rows stay below 2^62.
_SECRET_BITS = 20
_ROWS_AT_ONCE = 1 << 12


class LayerCheck:
    """The secret vectors of one layer in one session, and their products with its weights."""

    def __init__(self, layer: Layer, *, soundness_bits: int = DEFAULT_SOUNDNESS_BITS) -> None:
        self._layer = layer
        repetitions = math.ceil(soundness_bits / _SECRET_BITS)
        raw = np.frombuffer(secrets.token_bytes(4 * repetitions * layer.rows), dtype="<u4")
        self._secret = (raw & np.uint32((1 << _SECRET_BITS) - 1)).astype(np.int64).reshape(repetitions, layer.rows)
        flat = layer.weight.reshape(layer.rows, -1).astype(np.int64)
        product = (self._secret @ flat) % _field.PRIME
        product -= np.where(product > _field.HALF, _field.PRIME, 0)
        self._product = product.reshape(repetitions, *layer.weight.shape[1:]).astype(np.float64)

    def holds(self, entry: np.ndarray, results: np.ndarray) -> bool:
        """Return whether ``results`` (int32) are the layer's for ``entry`` (int8), wrongly with at most 2^-40 or so.

        Args:
            entry: (batch, channels, height, width), or (..., columns) for a matrix product.
            results: (batch, rows, height, width), or (..., rows).
        """
        if self._layer.window is None:
            claimed = self._claimed(results.reshape(-1, self._layer.rows).T).T.reshape(*results.shape[:-1], -1)
            expected = entry.astype(np.float64) @ self._product.T
        else:
            claimed = self._claimed(results.reshape(*results.shape[:2], -1))
            expected = self._convolved(entry).reshape(claimed.shape)
        return not np.any((claimed - expected.astype(np.int64)) % _field.PRIME)

    def _claimed(self, rows: np.ndarray) -> np.ndarray:
        """Return the secret vectors times results (..., rows, positions), modulo the prime."""
        total = np.zeros((), dtype=np.int64)
        for start in range(0, self._layer.rows, _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            total = (total + self._secret[:, part] @ rows[..., part, :].astype(np.int64)) % _field.PRIME
        return total

    def _convolved(self, entry: np.ndarray) -> np.ndarray:
        """Convolve with the secret products: sums of at most 2^15 products below 2^37, exact in float64."""
        window = self._layer.window
        assert window is not None  # noqa: S101 - the caller has looked
        top, left, bottom, right = window.pads
        padded = np.pad(entry, ((0, 0), (0, 0), (top, bottom), (left, right))).astype(np.float64)
        reach = [(size - 1) * step + 1 for size, step in zip(window.kernel, window.dilations, strict=True)]
        high, wide = (
            (size - span) // stride + 1
            for size, span, stride in zip(padded.shape[2:], reach, window.strides, strict=True)
        )
        total = np.zeros((len(entry), len(self._product), high * wide))
        for row in range(window.kernel[0]):
            for column in range(window.kernel[1]):
                top_, left_ = row * window.dilations[0], column * window.dilations[1]
                piece = padded[
                    :,
                    :,
                    top_ : top_ + (high - 1) * window.strides[0] + 1 : window.strides[0],
                    left_ : left_ + (wide - 1) * window.strides[1] + 1 : window.strides[1],
                ]
                total += self._product[:, :, row, column] @ piece.reshape(*piece.shape[:2], -1)
        return total
