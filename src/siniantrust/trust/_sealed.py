"""The sealed form of weights, as bytes: opened inside the enclave, which therefore needs no ONNX library for it.

Layout: magic (8 bytes), nonce (12 bytes), AES-256-GCM ciphertext, tag (16 bytes). The additional data is the format's
name, SHA-256(context) and SHA-256(skeleton): sealed weights open for one skeleton in one context only.
"""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from siniantrust.errors import TrustError

MAGIC = b"SNSEAL\x00\x01"
KEY_BYTES = 32
PRELUDE_KEY = "siniantrust.prelude"
"""Metadata among the weights: in base64 the model that makes a part's prepared inputs of noise."""
_NONCE_BYTES = 12
_TAG_BYTES = 16
HEAD_BYTES = len(MAGIC) + _NONCE_BYTES
OVERHEAD_BYTES = HEAD_BYTES + _TAG_BYTES
_CHUNK_BYTES = 256 << 10


class SealError(TrustError):
    """What is sealed does not open: it was changed, or is sealed under another key or for another context."""


def _additional_data(skeleton: bytes | memoryview, context: bytes | memoryview) -> bytes:
    return MAGIC + hashlib.sha256(context).digest() + hashlib.sha256(skeleton).digest()


def seal_bytes(plain: bytes, *, skeleton: bytes, key: bytes, context: bytes) -> bytes:
    """Encrypt ``plain`` under ``key`` (32 bytes) with a fresh random nonce, bound to ``skeleton`` and ``context``.

    Raises:
        TrustError: if the key has another length.
    """
    _check_key(len(key))
    nonce = os.urandom(_NONCE_BYTES)
    encryptor = Cipher(algorithms.AES(key), modes.GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(_additional_data(skeleton, context))
    return b"".join((MAGIC, nonce, encryptor.update(plain), encryptor.finalize(), encryptor.tag))


def open_in_place(
    sealed: memoryview, *, skeleton: bytes | memoryview, key: bytes | memoryview, context: bytes | memoryview
) -> memoryview:
    """Decrypt ``sealed`` (writable) in place and return the view of the plain text in it.

    Raises:
        SealError: if key, skeleton or context is another one, or a byte was changed; the plain text is zeroed then.
        TrustError: if the key has another length.
    """
    _check_key(len(key))
    if len(sealed) < OVERHEAD_BYTES or sealed[: len(MAGIC)] != MAGIC:
        raise SealError(f"sealed weights: {len(sealed)} bytes are not in the sealed form {MAGIC!r}")
    nonce = bytes(sealed[len(MAGIC) : HEAD_BYTES])
    tag = bytes(sealed[-_TAG_BYTES:])
    body = sealed[HEAD_BYTES:-_TAG_BYTES]
    decryptor = Cipher(algorithms.AES(key), modes.GCM(nonce, tag)).decryptor()
    decryptor.authenticate_additional_data(_additional_data(skeleton, context))
    staging = memoryview(bytearray(min(_CHUNK_BYTES, len(body))))
    for start in range(0, len(body), _CHUNK_BYTES):
        size = min(_CHUNK_BYTES, len(body) - start)
        decryptor.update_into(body[start : start + size], staging)
        body[start : start + size] = staging[:size]
    try:
        decryptor.finalize()
    except InvalidTag:
        body[:] = bytes(len(body))
        raise SealError(
            "sealed weights: they do not open; the key or the context is another one, or the file was changed"
        ) from None
    return body


def _check_key(size_bytes: int) -> None:
    if size_bytes != KEY_BYTES:
        raise TrustError(f"sealed weights: expected a key of {KEY_BYTES} bytes, found {size_bytes}")
