"""A key and a self-signed certificate for one end of a connection."""

from __future__ import annotations

import hashlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from siniantrust.errors import TrustError

_NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "siniantrust")])
_LIFETIME = timedelta(days=3650)
_CLOCK_SKEW = timedelta(days=1)


def public_key_der(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return a public key as DER, SubjectPublicKeyInfo."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(spki: bytes) -> str:
    """Return the SHA-256 of a public key (DER, SubjectPublicKeyInfo) in hexadecimal."""
    return hashlib.sha256(spki).hexdigest()


@dataclass(frozen=True, slots=True)
class Identity:
    """A P-256 key. The certificate around it says nothing more: nobody reads its names or dates."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def fresh(cls) -> Identity:
        """Make a new key, which is in memory only."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: bytes, *, origin: str) -> Identity:
        """Read a key that ``key_pem`` wrote.

        Raises:
            TrustError: if it is no P-256 private key.
        """
        try:
            key = load_pem_private_key(pem, password=None)
        except Exception:  # noqa: BLE001 - cryptography raises several classes, all of which mean the same here
            key = None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise TrustError(f"{origin}: expected a P-256 private key in PEM form without a password")
        return cls(key)

    @property
    def spki(self) -> bytes:
        """The public key as DER, SubjectPublicKeyInfo."""
        return public_key_der(self.key.public_key())

    def key_pem(self) -> bytes:
        """Return the private key as PEM, PKCS #8."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def load_into(self, context: ssl.SSLContext) -> None:
        """Give a context this key and a certificate for it."""
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(_NAME, _NAME, self.key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - _CLOCK_SKEW).not_valid_after(now + _LIFETIME)
        certificate = builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM)
        with _passing_file(certificate + self.key_pem()) as path:
            context.load_cert_chain(path)


@contextmanager
def _passing_file(data: bytes) -> Iterator[str]:
    """Yield the path of a private file for ``ssl``, which reads files only.

    The file is in memory; where the system has no such files (a library OS such as Gramine, whose ``/tmp`` is the
    enclave's own memory), it is a temporary one that is removed at once.
    """
    try:
        handle = os.memfd_create("identity", os.MFD_CLOEXEC)
    except OSError:
        with tempfile.NamedTemporaryFile(prefix="identity-") as file:
            file.write(data)
            file.flush()
            yield file.name
        return
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        yield f"/proc/self/fd/{handle}"
