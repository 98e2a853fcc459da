"""From two X25519 keys and a transcript to a session: one key for each direction (HKDF-SHA256, RFC 5869).

    client  → enclave   hello: magic, nonce, client's public key
    enclave → client    evidence (JSON), which binds nonce and both public keys
    both                keys = HKDF(X25519, salt = SHA-256(hello, evidence), info = purpose)

The client derives keys only after it has appraised the evidence. Whoever changes a byte of the transcript gets other
keys.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from siniantrust.errors import ChannelError
from siniantrust.trust._cipher import KEY_BYTES, SESSION_ID_BYTES, Direction, RecordCipher
from siniantrust.trust._evidence import NONCE_BYTES, PUBLIC_KEY_BYTES
from siniantrust.trust._secret import SecretMemory, wipe

_MAGIC = b"SINIAN-ENCLAVE-1"
HELLO_BYTES = len(_MAGIC) + NONCE_BYTES + PUBLIC_KEY_BYTES


def public_bytes(key: X25519PrivateKey) -> bytes:
    """Return the 32 bytes of a key's public half."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def client_hello(nonce: bytes, client_public_key: bytes) -> bytes:
    """Return the first message."""
    return _MAGIC + nonce + client_public_key


def parse_client_hello(raw: bytes) -> tuple[bytes, bytes]:
    """Return nonce and client's public key.

    Raises:
        ChannelError: if it is no hello.
    """
    if len(raw) != HELLO_BYTES or not raw.startswith(_MAGIC):
        raise ChannelError(f"channel: expected a hello of {HELLO_BYTES} bytes, found {len(raw)} other bytes")
    return raw[len(_MAGIC) : len(_MAGIC) + NONCE_BYTES], raw[len(_MAGIC) + NONCE_BYTES :]


@dataclass(frozen=True, slots=True)
class SessionCiphers:
    """The two directions of a session."""

    to_enclave: RecordCipher
    to_client: RecordCipher


def derive(
    private_key: X25519PrivateKey, peer_public_key: bytes, *, hello: bytes, evidence: bytes, secret: SecretMemory
) -> SessionCiphers:
    """Derive the session's ciphers; the keys come to lie in ``secret`` and nowhere else for longer than this call.

    Raises:
        ChannelError: if the peer's key is not a usable X25519 key.
    """
    transcript = hashlib.sha256(
        len(hello).to_bytes(8, "big") + hello + len(evidence).to_bytes(8, "big") + evidence
    ).digest()
    try:
        shared = private_key.exchange(X25519PublicKey.from_public_bytes(peer_public_key))
    except ValueError:
        raise ChannelError("channel: the peer's X25519 public key is not usable") from None
    session_id = hashlib.sha256(b"siniantrust session id" + transcript).digest()[:SESSION_ID_BYTES]
    ciphers = {}
    for direction in Direction:
        key = secret.allocate(KEY_BYTES)
        info = b"siniantrust channel key " + direction.name.encode()
        HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=transcript, info=info).derive_into(shared, key)
        ciphers[direction] = RecordCipher(key, session_id, direction)
    wipe(shared)
    return SessionCiphers(ciphers[Direction.TO_ENCLAVE], ciphers[Direction.TO_CLIENT])
