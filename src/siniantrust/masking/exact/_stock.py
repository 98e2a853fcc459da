"""Corrections, worked out ahead of time: outside the enclave, where there is room, under AES-256-OCB (RFC 7253).

A correction is what a layer makes of a pad; with it and the host's answer anyone has the layer's result. It costs as
many multiplications as the layer itself: preparing moves work to idle time, and removes none.

They are authenticated, although a changed one would fail the layer's check like a changed answer. Else the host could
flip a bit of one that it cannot read, change the answer as if the bit had been 0, and learn the bit from whether the
check passes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import MutableMapping, Sequence

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESOCB3

from siniantrust.errors import TrustError


class Stock:
    """Prepared queries; each is taken once. ``outside`` may lie in memory that the host reads and writes.

    A correction's name is its query and the number of its layer, 12 bytes. A query is never used twice under a key, so
    that the name serves as the nonce too.
    """

    def __init__(self, key: bytes, outside: MutableMapping[bytes, bytes]) -> None:
        self._cipher = AESOCB3(key)
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
        """Add a prepared query: a correction (uint32) for every layer of the program, in order."""
        for layer, array in enumerate(corrections):
            name = stock_name(query, layer)
            self._outside[name] = self._cipher.encrypt(name, array.data.cast("B"), None)
        with self._lock:
            self._ready.append(query)

    def take(self) -> int | None:
        """Return the number of a prepared query, which then is no longer in stock; None where it is dry."""
        with self._lock:
            return self._ready.popleft() if self._ready else None

    def open(self, query: int, layer: int, correction: np.ndarray) -> None:
        """Decrypt one correction of a taken query into ``correction`` (uint32), and forget it.

        Raises:
            TrustError: if the host lost it, changed it or gives another one.
        """
        name = stock_name(query, layer)
        sealed = self._outside.pop(name, None)
        if sealed is None:
            raise TrustError(f"pad stock: the correction of layer {layer} for query {query} is gone; the host lost it")
        try:
            self._cipher.decrypt_into(name, sealed, None, correction.data.cast("B"))
        except (InvalidTag, ValueError):
            raise TrustError(
                f"pad stock: the correction of layer {layer} for query {query} does not open; the host changed it"
            ) from None


def stock_name(query: int, layer: int) -> bytes:
    """Return the name of a correction: its query and the number of its layer."""
    return query.to_bytes(8, "big") + layer.to_bytes(4, "big")
