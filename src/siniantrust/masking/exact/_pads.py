"""One-time pads: AES-256 in counter mode, one stretch of the counter for each (query, value).

The generator is the one of NIST SP 800-38A, section 6.5, from a kept library. Every byte of it is a limb of a pad, so
that pads are even over all numbers of so many limbs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from siniantrust.errors import TrustError

KEY_BYTES = 32
MAX_QUERY = (1 << 64) - 1
MAX_VALUE = (1 << 32) - 1
# A second-level cache holds the pads of so many numbers and what they are added to.
SHARE = 1 << 15
_BLOCK_BYTES = 16
_MOST_BYTES = (1 << 32) * _BLOCK_BYTES


class PadSource:
    """Makes the pads of one key. It does not know which were used: that is the ledger's part."""

    def __init__(self, key: bytes | memoryview) -> None:
        if len(key) != KEY_BYTES:
            raise TrustError(f"pads: expected a key of {KEY_BYTES} bytes, found {len(key)}")
        self._algorithm = algorithms.AES(bytes(key))
        # Giving one another nonce takes a tenth of the time of making one, and its buffer lies in a cache already.
        self._spare: list[tuple[CipherContext, np.ndarray]] = []
        self._zeros = memoryview(b"")

    def pad(self, query: int, value: int, count: int, *, limbs: int, share: int = SHARE) -> np.ndarray:
        """Return the pad of ``value`` (its number in the program) in ``query``: uint8 (limbs, count).

        It depends on ``share``, by which it is drawn.

        Raises:
            TrustError: if a number is out of the counter's range: wrapping around would use a pad twice.
        """
        _check(query, value, count * limbs)
        whole = np.empty((limbs, count), np.uint8)
        for start, pads in self.shares(query, value, count, limbs=limbs, share=share):
            whole[:, start : start + pads.shape[1]] = pads
        return whole

    def shares(
        self, query: int, value: int, count: int, *, limbs: int, share: int = SHARE
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the pad ``share`` numbers at a time, and where they begin. Raises TrustError as ``pad``.

        Each share is overwritten by the next; all whole ones are the same array.
        """
        _check(query, value, count * limbs)
        encryptor, buffer = self._encryptor(query, value)
        size_bytes = min(count, share) * limbs
        if size_bytes > len(buffer):
            buffer = np.empty(size_bytes, np.uint8)
        if size_bytes > len(self._zeros):
            self._zeros = memoryview(bytes(size_bytes))
        all_zeros, whole, rest = self._zeros, count // share, count % share
        if whole:
            zeros, pads = all_zeros[:size_bytes], buffer[:size_bytes].reshape(limbs, share)
            into = pads.data.cast("B")
            for number in range(whole):
                encryptor.update_into(zeros, into)
                yield number * share, pads
        if rest:
            pads = buffer[: rest * limbs].reshape(limbs, rest)
            encryptor.update_into(all_zeros[: pads.nbytes], pads.data.cast("B"))
            yield whole * share, pads
        self._spare.append((encryptor, buffer))

    def _encryptor(self, query: int, value: int) -> tuple[CipherContext, np.ndarray]:
        """Return a context of this thread alone at the beginning of a stretch, and a buffer of any size."""
        counter = query.to_bytes(8, "big") + value.to_bytes(4, "big") + bytes(4)
        try:
            encryptor, buffer = self._spare.pop()
        except IndexError:
            return Cipher(self._algorithm, modes.CTR(counter)).encryptor(), np.empty(0, np.uint8)
        encryptor.reset_nonce(counter)
        return encryptor, buffer


def _check(query: int, value: int, size_bytes: int) -> None:
    if not (0 <= query <= MAX_QUERY and 0 <= value <= MAX_VALUE and 0 <= size_bytes <= _MOST_BYTES):
        raise TrustError(f"pads: query {query}, value {value}, {size_bytes} bytes are beyond the counter's range")
