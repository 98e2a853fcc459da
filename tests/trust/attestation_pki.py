"""Certificate authorities and signatures for evidence that tests make themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

NOW = datetime(2025, 6, 20, tzinfo=UTC)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Entity:
    """Somebody with a certificate and the key to it."""

    name: str
    key: Key
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        """The certificate in DER."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        """The certificate in PEM."""
        return self.certificate.public_bytes(Encoding.PEM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a certificate is to say."""

    name: str
    authority: bool = False
    path_length: int | None = None
    extensions: Sequence[tuple[str, bytes]] = ()
    start: datetime = NOW - timedelta(days=400)
    end: datetime = NOW + timedelta(days=4000)
    serial: int = 7
    more: Sequence[x509.NameAttribute[str]] = ()


def issue(request: Request, key: Key, issuer: Entity | None = None) -> Entity:
    """Return an entity whose certificate ``issuer`` signed, or itself if there is none."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, request.name), *request.more])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(request.serial)
        .not_valid_before(request.start)
        .not_valid_after(request.end)
        .add_extension(x509.BasicConstraints(ca=request.authority, path_length=request.path_length), critical=True)
    )
    if request.authority:
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
        )
        usage |= {"key_cert_sign": True, "crl_sign": True, "encipher_only": False, "decipher_only": False}
        builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
    for oid, value in request.extensions:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
        builder = builder.add_extension(extension, critical=False)
    signer = key if issuer is None else issuer.key
    return Entity(request.name, key, builder.sign(signer, _hash(signer), rsa_padding=_padding(signer)))


def revoke(issuer: Entity, serials: Sequence[int] = (), *, next_update: datetime = NOW + timedelta(days=30)) -> bytes:
    """Return a revocation list in DER."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(min(NOW, next_update) - timedelta(days=1))
        .next_update(next_update)
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(_key_identifier(issuer), critical=False)
    )
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - timedelta(days=2)).build()
        builder = builder.add_revoked_certificate(entry)
    signed = builder.sign(issuer.key, _hash(issuer.key), rsa_padding=_padding(issuer.key))
    return signed.public_bytes(Encoding.DER)


def _key_identifier(issuer: Entity) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())


def _hash(key: Key) -> hashes.SHA256 | hashes.SHA384:
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return hashes.SHA256()
    return hashes.SHA384()


def _padding(key: Key) -> padding.PSS | None:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return None
    return padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)


def sign_pair(key: Key, data: bytes) -> tuple[int, int]:
    """Return the numbers (r, s) of an ECDSA signature."""
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return decode_dss_signature(key.sign(data, ec.ECDSA(_hash(key))))


def sign_raw(key: Key, data: bytes) -> bytes:
    """Return an ECDSA signature as r and s, big-endian, side by side."""
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    size_bytes = key.curve.key_size // 8
    return b"".join(number.to_bytes(size_bytes, "big") for number in sign_pair(key, data))


def der(tag: int, *contents: bytes) -> bytes:
    """Return one DER value."""
    body = b"".join(contents)
    size = len(body)
    length = bytes([size]) if size < 128 else bytes([0x82, size >> 8, size & 0xFF])
    return bytes([tag]) + length + body


def der_integer(value: int) -> bytes:
    """Return a DER INTEGER that is not negative."""
    return der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def der_oid(text: str) -> bytes:
    """Return a DER OBJECT IDENTIFIER."""
    first, second, *rest = map(int, text.split("."))
    body = bytearray([first * 40 + second])
    for number in rest:
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(number & 0x7F | 0x80)
        body += bytes(reversed(groups))
    return der(6, bytes(body))
