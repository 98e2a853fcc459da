"""Keys on their way: JWE (RFC 7516) with ECDH-ES+A256KW and A256GCM to a P-256 key, through joserfc."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from siniantrust._extras import require
from siniantrust.errors import TrustError

_ALGORITHMS = ("ECDH-ES+A256KW", "A256GCM")


def encrypt_key(key: bytes, recipient: ec.EllipticCurvePublicKey, *, key_id: str) -> str:
    """Return ``key`` as a compact JWE that only ``recipient`` opens.

    Raises:
        MissingExtraError: if joserfc is not installed.
    """
    jwe, jwk = require("joserfc.jwe", extra="attest"), require("joserfc.jwk", extra="attest")
    public = jwk.ECKey.import_key(recipient.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    header = {"alg": _ALGORITHMS[0], "enc": _ALGORITHMS[1], "kid": key_id}
    text: str = jwe.encrypt_compact(header, key, public, algorithms=list(_ALGORITHMS))
    return text


def decrypt_key(text: str, recipient: ec.EllipticCurvePrivateKey, *, key_id: str) -> bytes:
    """Open what ``encrypt_key`` made.

    Raises:
        TrustError: if it is for another key or key id, or was changed.
        MissingExtraError: if joserfc is not installed.
    """
    jwe, jwk = require("joserfc.jwe", extra="attest"), require("joserfc.jwk", extra="attest")
    private = jwk.ECKey.import_key(recipient.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    try:
        opened = jwe.decrypt_compact(text, private, algorithms=list(_ALGORITHMS))
    except Exception as fault:  # noqa: BLE001 - beside its own errors, joserfc lets KeyError and TypeError through
        raise TrustError(f"key {key_id}: the broker's answer does not open ({' '.join(str(fault).split())})") from None
    if opened.headers().get("kid") != key_id:
        raise TrustError(f"key {key_id}: the broker's answer is for another key, {opened.headers().get('kid')!r}")
    key: bytes = opened.plaintext
    return key
