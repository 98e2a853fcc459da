"""Corrections, worked out ahead of time: outside the enclave, where there is room, each under a pad of its own.

A correction u is what a layer makes of a pad; with it and the host's answer a anyone has the layer's result. It costs
as many multiplications as the layer itself: preparing moves work to idle time, and removes none.

What lies outside is s - u modulo the prime, s even over the residues and used for nothing else, so that it is even over
them too. The answer is added to it and s taken off, a + (s - u) - s, in the pass that makes use of the result: nothing
is decrypted into memory first. It needs no authentication before that. Whatever a host adds to it, it might as well
have added to the answer; the result is wrong by what was added, whatever s and u are, and fails the layer's check; or
nothing was added, and the result is the same. So from a refusal a host learns nothing that it does not know. (Under a
cipher that flips bits it would: whether a flipped bit adds or subtracts depends on the bit.)

A tag (AES-256-GMAC, NIST SP 800-38D) says after a refusal who is to blame, the device or the stock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, MutableMapping, Sequence

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from siniantrust.errors import TrustError
from siniantrust.masking.exact import _field
from siniantrust.masking.exact._pads import PadSource

_TAG_BYTES = 16


class Stock:
    """Prepared queries; each is taken once. ``outside`` may lie in memory that the host reads and writes.

    A correction's name is its query and the number of its layer, 12 bytes. A query is never used twice under a key, so
    that the name serves as the tag's nonce too.

    Args:
        pads: makes s, by query and layer; its key is for nothing else.
        tag_key: 32 bytes.
        outside: where corrections lie.
    """

    def __init__(self, pads: PadSource, tag_key: bytes, outside: MutableMapping[bytes, bytes]) -> None:
        self._pads = pads
        self._tags = AESGCM(tag_key)
        self._outside = outside
        self._ready: deque[int] = deque()
        self._lock = threading.Lock()

    @property
    def level(self) -> int:
        """How many queries are prepared."""
        return len(self._ready)

    @property
    def stored_bytes(self) -> int:
        """Bytes that lie outside now."""
        return sum(map(len, self._outside.values()))

    def put(self, query: int, corrections: Sequence[np.ndarray]) -> None:
        """Add a prepared query: a correction (uint32, residues) for every layer of the program, in order."""
        for layer, array in enumerate(corrections):
            name = stock_name(query, layer)
            flat = array.reshape(-1)
            sealed = _field.sealed(flat, self._pads.pad(query, layer, len(flat))).tobytes()
            self._outside[name] = sealed + self._tags.encrypt(name, b"", sealed)
        with self._lock:
            self._ready.append(query)

    def take(self) -> int | None:
        """Return the number of a prepared query, which then is no longer in stock; None where it is dry."""
        with self._lock:
            return self._ready.popleft() if self._ready else None

    def sealed(self, query: int, layer: int, count: int) -> np.ndarray:
        """Return a sealed correction of a taken query, as it lies outside: ``count`` words, uint32, of whatever value.

        Raises:
            TrustError: if the host lost it, or gives one of another size.
        """
        found = self._outside.get(stock_name(query, layer))
        if found is None or len(found) != 4 * count + _TAG_BYTES:
            what = "is gone" if found is None else "has another size"
            raise TrustError(f"pad stock: the correction of layer {layer} for query {query} {what}; the host lost it")
        return np.frombuffer(found, "<u4", count)

    def words(self, query: int, layer: int, count: int, share: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield the words of s, as ``PadSource.words``."""
        return self._pads.words(query, layer, count, share=share)

    def pad(self, query: int, layer: int, count: int) -> np.ndarray:
        """Return s, as ``PadSource.pad``."""
        return self._pads.pad(query, layer, count)

    def require_untouched(self, query: int, layer: int) -> None:
        """Say so where a correction that a result was made with is not what was prepared.

        Raises:
            TrustError: if the host changed it.
        """
        name = stock_name(query, layer)
        found = self._outside.get(name, b"")
        try:
            self._tags.decrypt(name, found[-_TAG_BYTES:], found[:-_TAG_BYTES])
        except (InvalidTag, ValueError):
            raise TrustError(
                f"pad stock: the correction of layer {layer} for query {query} does not open; the host changed it"
            ) from None

    def forget(self, query: int, layer: int) -> None:
        """Drop a correction that was used."""
        self._outside.pop(stock_name(query, layer), None)


def stock_name(query: int, layer: int) -> bytes:
    """Return the name of a correction: its query and the number of its layer."""
    return query.to_bytes(8, "big") + layer.to_bytes(4, "big")
