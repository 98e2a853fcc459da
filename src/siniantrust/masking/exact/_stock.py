"""Corrections, worked out ahead of time: at the host, where there is room, each under a pad of its own.

A correction u is what a layer makes of a pad; with it and a device's answer a anyone has the layer's result. It costs
as many multiplications as the layer itself: preparing moves work to idle time, and removes none.

What the host keeps is s - u, s even over all numbers and used for nothing else, so that it is even over them too. The
host adds it to the answer, a + (s - u), and the enclave takes s off in the pass that makes use of the result: one
number crosses for each result, and nothing is decrypted into memory first. It needs no authentication before that.
Whatever a host adds, it might as well have added to the answer; the result is wrong by what was added, whatever s and u
are, and fails the layer's check; or nothing was added, and the result is the same. So from a refusal a host learns
nothing that it does not know.

A tag (AES-256-GMAC, NIST SP 800-38D) says after a refusal who is to blame, the device or the stock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from siniantrust.masking.exact import _ring
from siniantrust.masking.exact._pads import PadSource

TAG_BYTES = 16


class Stock:
    """Which queries are prepared, each taken once; seals corrections and takes off what they were sealed with.

    A query is never used twice under a key, so that it serves with the layer's number as the tag's nonce.

    Args:
        pads: makes s, by query and layer; its key is for nothing else.
        tag_key: 32 bytes.
    """

    def __init__(self, pads: PadSource, tag_key: bytes) -> None:
        self._pads = pads
        self._tags = AESGCM(tag_key)
        self._ready: deque[int] = deque()
        self._lock = threading.Lock()

    @property
    def level(self) -> int:
        """How many queries are prepared."""
        return len(self._ready)

    def add(self, query: int) -> None:
        """Note that a query is prepared."""
        with self._lock:
            self._ready.append(query)

    def take(self) -> int | None:
        """Return the number of a prepared query, which then is no longer in stock; None where it is dry."""
        with self._lock:
            return self._ready.popleft() if self._ready else None

    def sealed(self, query: int, layer: int, correction: np.ndarray, *, share: int) -> bytes:
        """Return a correction, uint8 (limbs, count), as a host keeps it, with its tag."""
        limbs, count = correction.shape
        raw = _ring.minus(self._pads.pad(query, layer, count, limbs=limbs, share=share), correction).tobytes()
        return raw + self._tags.encrypt(_name(query, layer), b"", raw)

    def shares(self, query: int, layer: int, count: int, *, limbs: int, share: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield s, as ``PadSource.shares``."""
        return self._pads.shares(query, layer, count, limbs=limbs, share=share)

    def is_untouched(self, query: int, layer: int, kept: bytes) -> bool:
        """Return whether what a host kept of a correction is what ``sealed`` made."""
        try:
            self._tags.decrypt(_name(query, layer), kept[-TAG_BYTES:], kept[:-TAG_BYTES])
        except (InvalidTag, ValueError):
            return False
        return True


def _name(query: int, layer: int) -> bytes:
    return query.to_bytes(8, "big") + layer.to_bytes(4, "big")
