"""One-time pads: AES-256 in counter mode, one stretch of the counter for each (query, value).

The generator is the one of NIST SP 800-38A, section 6.5, from a kept library. Words of 31 bits are even on 0 to
2^31 - 1; the one value that is no residue is drawn again, so that pads are even modulo the prime without exception.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from siniantrust.errors import TrustError
from siniantrust.masking.exact._field import PRIME

KEY_BYTES = 32
MAX_QUERY = (1 << 64) - 1
MAX_VALUE = (1 << 32) - 1
# 128 KiB: a second-level cache holds the words and what they are added to.
SHARE_WORDS = 1 << 15
# The last of a stretch's 2^32 counter values begin the second draws.
_REDRAW_BLOCK = 1 << 31
_MOST_WORDS = _REDRAW_BLOCK * 4


class PadSource:
    """Makes the pads of one key. It does not know which were used: that is the ledger's part."""

    def __init__(self, key: bytes | memoryview) -> None:
        if len(key) != KEY_BYTES:
            raise TrustError(f"pads: expected a key of {KEY_BYTES} bytes, found {len(key)}")
        self._algorithm = algorithms.AES(bytes(key))
        # Giving one another nonce takes a tenth of the time of making one.
        self._spare: list[CipherContext] = []
        self._zeros = memoryview(bytes(4 * SHARE_WORDS))

    def pad(self, query: int, value: int, count: int) -> np.ndarray:
        """Return the pad of ``value`` (its number in the program) in ``query``: ``count`` residues, uint32.

        Raises:
            TrustError: if a number is out of the counter's range: wrapping around would use a pad twice.
        """
        _check(query, value, count)
        words = self._words(query, value, 0, count) & np.uint32(PRIME)
        odd = np.flatnonzero(words == PRIME)
        block = _REDRAW_BLOCK
        while len(odd):
            words[odd] = self._words(query, value, block, len(odd)) & np.uint32(PRIME)
            block += -(-len(odd) // 4)
            odd = odd[words[odd] == PRIME]
        return words

    def words(
        self, query: int, value: int, count: int, *, share: int = SHARE_WORDS
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield the 32-bit words that a pad is made of, before any is drawn again, ``share`` at a time.

        Each share is overwritten by the next. Raises TrustError as ``pad``.
        """
        _check(query, value, count)
        encryptor = self._encryptor(query, value, 0)
        most = np.empty(min(count, share), dtype="<u4")
        if most.nbytes > len(self._zeros):
            self._zeros = memoryview(bytes(most.nbytes))
        zeros = self._zeros
        for start in range(0, count, share):
            words = most[: count - start]
            encryptor.update_into(zeros[: words.nbytes], words.data.cast("B"))
            yield slice(start, start + len(words)), words
        self._spare.append(encryptor)

    def _words(self, query: int, value: int, block: int, count: int) -> np.ndarray:
        words = np.empty(count, dtype="<u4")
        if count:
            self._encryptor(query, value, block).update_into(bytes(words.nbytes), words.data.cast("B"))
        return words

    def _encryptor(self, query: int, value: int, block: int) -> CipherContext:
        """Return a context of this thread alone at a place of the counter."""
        counter = query.to_bytes(8, "big") + value.to_bytes(4, "big") + block.to_bytes(4, "big")
        try:
            encryptor = self._spare.pop()
        except IndexError:
            return Cipher(self._algorithm, modes.CTR(counter)).encryptor()
        encryptor.reset_nonce(counter)
        return encryptor


def _check(query: int, value: int, count: int) -> None:
    if not (0 <= query <= MAX_QUERY and 0 <= value <= MAX_VALUE and 0 <= count <= _MOST_WORDS):
        raise TrustError(f"pads: query {query}, value {value}, {count} words are beyond the counter's range")
