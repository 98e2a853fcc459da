"""AES-256-GCM over one direction of a channel: counters for nonces, strict order, and no cipher on shared memory.

Each record is encrypted under its own nonce: the direction (32 bits) and a counter (64 bits) that never repeats under a
key, the deterministic construction of NIST SP 800-38D, section 8.2.1. The additional data binds session, direction,
counter, kind and length, so that a record counts at one place of one session only.

A host can change shared memory at any moment. OpenSSL reads ciphertext twice, once to decrypt and once to authenticate,
so what it checks and what it decrypts could differ. Therefore a record passes through a small private buffer, which
stays in the processor's cache: the cipher works on private memory only, and shared memory is read or written once.

The key is expanded afresh for each record, and OpenSSL clears the expanded form right after it: between records, the
key is in the memory that the caller chose for it and nowhere else.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from siniantrust.errors import ChannelError

TAG_BYTES = 16
KEY_BYTES = 32
SESSION_ID_BYTES = 16
MAX_RECORD_BYTES = 128 << 10
_MAX_COUNTER = (1 << 64) - 1
_AAD = struct.Struct(">16sBQBQ")
_NONCE = struct.Struct(">IQ")


class Direction(IntEnum):
    """Who sends."""

    TO_ENCLAVE = 1
    TO_CLIENT = 2


class Kind(IntEnum):
    """What a record is."""

    CONTROL = 1
    PAYLOAD = 2


class RecordCipher:
    """One end of one direction: seals records in order, or opens them in the same order.

    Args:
        key: view of the direction's 32-byte key, read afresh for each record.
        session_id: 16 bytes that name the session.
        direction: who sends on this key.
    """

    def __init__(self, key: memoryview, session_id: bytes, direction: Direction) -> None:
        if len(key) != KEY_BYTES or len(session_id) != SESSION_ID_BYTES:
            raise ChannelError(f"channel: expected a {KEY_BYTES}-byte key and a {SESSION_ID_BYTES}-byte session id")
        self._key = key
        self._session_id = session_id
        self._direction = direction
        self._staging = memoryview(bytearray(MAX_RECORD_BYTES + TAG_BYTES))
        self.counter = 0

    def _next(self, kind: Kind, size_bytes: int) -> tuple[bytes, bytes, memoryview]:
        """Use up one counter; return its nonce and additional data, and the private buffer for the sealed record."""
        if size_bytes > MAX_RECORD_BYTES:
            raise ChannelError(f"channel: a record of {size_bytes} bytes is over the limit of {MAX_RECORD_BYTES}")
        if self.counter > _MAX_COUNTER:
            raise ChannelError("channel: all counters of this session key are used up; launch the enclave again")
        nonce = _NONCE.pack(self._direction, self.counter)
        aad = _AAD.pack(self._session_id, self._direction, self.counter, kind, size_bytes)
        self.counter += 1
        return nonce, aad, self._staging[: size_bytes + TAG_BYTES]

    def seal(self, kind: Kind, plain: memoryview, target: memoryview) -> None:
        """Encrypt ``plain`` (bytes) into ``target``, which is ``TAG_BYTES`` longer: ciphertext, then tag."""
        nonce, aad, private = self._next(kind, len(plain))
        AESGCM(self._key).encrypt_into(nonce, plain, aad, private)
        target[:] = private

    def open(self, kind: Kind, sealed: memoryview, plain: memoryview) -> None:
        """Authenticate and decrypt ``sealed`` into ``plain``, which is ``TAG_BYTES`` shorter.

        Raises:
            ChannelError: if the record is not the next one of this session, unchanged; ``plain`` is zeroed then.
        """
        number = self.counter
        nonce, aad, private = self._next(kind, len(plain))
        private[:] = sealed
        try:
            AESGCM(self._key).decrypt_into(nonce, private, aad, plain)
        except InvalidTag:
            plain[:] = bytes(len(plain))
            raise ChannelError(
                f"channel: {kind.name.lower()} record {number} does not authenticate; it was changed, replayed or "
                "reordered, and the session ends here"
            ) from None
