"""Certificate chains as attestation has them: a few fixed certificates, up to a root that the Verifier knows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from itertools import pairwise
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning

from siniantrust.errors import AttestationError
from siniantrust.trust._labels import Provenance
from siniantrust.trust.attestation._roles import ReferenceValues
from siniantrust.trust.attestation._strict import one_line

_T = TypeVar("_T")
_MAX_CHAIN = 8
_MAX_BYTES = 64 << 10
_UNREADABLE = (ValueError, TypeError, UserWarning, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion)


def load_certificate(der: bytes, what: str) -> x509.Certificate:
    """Read one DER certificate; ``what`` names it in errors.

    Raises:
        AttestationError: if it is none.
    """
    return _read(lambda: _whole(x509.load_der_x509_certificate(der)), len(der), what)


def load_pem_chain(pem: bytes, what: str) -> list[x509.Certificate]:
    """Read a chain of PEM certificates, the leaf first, in exactly the form in which it would be written again.

    A lenient reader would skip what stands between the certificates, so that two texts would mean the same chain.

    Raises:
        AttestationError: if it is none, or is written in another way.
    """
    chain = _read(lambda: [_whole(each) for each in x509.load_pem_x509_certificates(pem)], len(pem), what)
    again = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)
    if pem.rstrip(b"\n") != again.rstrip(b"\n"):
        raise AttestationError(f"{what}: expected PEM certificates and nothing else, found something between them")
    return chain


def load_crl(der: bytes, what: str) -> x509.CertificateRevocationList:
    """Read a DER revocation list.

    Raises:
        AttestationError: if it is none.
    """

    def read() -> x509.CertificateRevocationList:
        crl = x509.load_der_x509_crl(der)
        crl.issuer.rfc4514_string()
        check_signature_form(crl)
        return crl

    return _read(read, len(der), what)


def check_signature_form(signed: x509.Certificate | x509.CertificateRevocationList) -> None:
    """Refuse a signature of which some last bits are said not to count: what it signs would have two forms.

    Raises:
        ValueError: if there are such bits.
    """
    if not signed.public_bytes(Encoding.DER).endswith(b"\0" + signed.signature):
        raise ValueError("unused bits in its signature")


def _whole(certificate: x509.Certificate) -> x509.Certificate:
    """Return a certificate after what is looked at later was read once, since it is only parsed on demand."""
    certificate.public_key()
    tuple(certificate.extensions)
    certificate.subject.rfc4514_string()
    certificate.issuer.rfc4514_string()
    check_signature_form(certificate)
    return certificate


def _read(read: Callable[[], _T], size_bytes: int, what: str) -> _T:
    if size_bytes > _MAX_BYTES:
        raise AttestationError(f"{what}: expected at most {_MAX_BYTES} bytes, found {size_bytes}")
    try:
        with warnings.catch_warnings():
            # What cryptography only warns of (names that cannot be) is refused, but for this: AMD numbers every VCEK 0,
            # which RFC 5280 forbids.
            warnings.simplefilter("error", UserWarning)
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            return read()
    except _UNREADABLE as fault:
        raise AttestationError(f"{what}: cannot be read ({one_line(fault)})") from None


def check_chain(chain: Sequence[x509.Certificate], now: datetime, what: str) -> None:
    """Check that each certificate is signed by the next, the last by itself, and that all are valid at ``now``.

    Whether the last one is trusted is for the caller to say.

    Raises:
        AttestationError: naming the certificate that is not in order.
    """
    if now.tzinfo is None:
        raise AttestationError(f"{what}: expected a time with its time zone, found {now.isoformat()}")
    if not 1 <= len(chain) <= _MAX_CHAIN:
        raise AttestationError(f"{what}: expected 1 to {_MAX_CHAIN} certificates, found {len(chain)}")
    if len(set(chain)) != len(chain):  # a root signs itself, as often as one likes
        raise AttestationError(f"{what}: a certificate stands twice in it")
    for certificate in chain:
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise AttestationError(
                f"{what}: {_name(certificate)} is valid from {certificate.not_valid_before_utc:%Y-%m-%d} to "
                f"{certificate.not_valid_after_utc:%Y-%m-%d}, not at {now:%Y-%m-%d}"
            )
    for below, issuer in enumerate(chain[1:]):
        _check_authority(issuer, below, what)
    for certificate, issuer in pairwise([*chain, chain[-1]]):
        try:
            certificate.verify_directly_issued_by(issuer)
        except (InvalidSignature, *_UNREADABLE):
            raise AttestationError(f"{what}: {_name(certificate)} is not signed by {_name(issuer)}") from None


def _check_authority(issuer: x509.Certificate, below: int, what: str) -> None:
    """Refuse an issuer that is no authority, or may not have ``below`` authorities under it."""
    try:
        limits = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, *_UNREADABLE):
        raise AttestationError(f"{what}: {_name(issuer)} does not say that it may sign certificates") from None
    too_deep = limits.path_length is not None and below > limits.path_length
    if not limits.ca or not usage.key_cert_sign or too_deep:
        raise AttestationError(f"{what}: {_name(issuer)} may not sign certificates at this place of the chain")


def check_not_revoked(
    certificates: Sequence[x509.Certificate],
    crl: x509.CertificateRevocationList,
    issuer: x509.Certificate,
    now: datetime,
    what: str,
) -> None:
    """Check a revocation list of ``issuer`` and that none of its ``certificates`` is on it.

    Raises:
        AttestationError: if the list is not the issuer's or not valid at ``now``, or one of them was revoked.
    """
    try:
        authentic = crl.issuer == issuer.subject and crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except _UNREADABLE:
        authentic = False
    if not authentic:
        raise AttestationError(f"{what}: the revocation list is not signed by {_name(issuer)}")
    next_update = crl.next_update_utc
    if next_update is None or not crl.last_update_utc <= now <= next_update:
        raise AttestationError(f"{what}: the revocation list is not valid at {now:%Y-%m-%d}; fetch it again")
    for certificate in certificates:
        if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
            raise AttestationError(f"{what}: {_name(certificate)} was revoked by {_name(issuer)}")


def trust_root(root: x509.Certificate, keys: Collection[str], reference: ReferenceValues, what: str) -> Provenance:
    """Return ``hardware`` for a root whose key is one of the vendor's ``keys``, ``emulated`` for the reference's own.

    Args:
        root: the last certificate of a chain that was checked.
        keys: SHA-256 of the vendor's public keys, in hexadecimal.
        reference: its anchors are roots (DER) that the Relying Party trusts beside them.
        what: names the chain in errors.

    Raises:
        AttestationError: if it is none of them.
    """
    anchors = {key_sha256(load_certificate(der, f"{what}, anchor {name}")) for name, der in reference.anchors.items()}
    if key_sha256(root) in keys:
        return Provenance.HARDWARE
    if key_sha256(root) in anchors:
        return Provenance.EMULATED
    raise AttestationError(f"{what}: the root {_name(root)} is neither the vendor's nor one of the reference's anchors")


def check_p384_signature(certificate: x509.Certificate, pair: tuple[int, int], signed: bytes, what: str) -> None:
    """Check a signature (r, s) by ECDSA on P-384 with SHA-384 under a certificate's key.

    Raises:
        AttestationError: if the key is of another kind or the signature is not the key's.
    """
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise AttestationError(f"{what}: expected a certificate for a P-384 key, found another kind of key")
    try:
        key.verify(encode_dss_signature(*pair), signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise AttestationError(f"{what}: its signature is not that of the certified key") from None


def key_sha256(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate's public key (DER, SubjectPublicKeyInfo) in hexadecimal."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()


def common_name(certificate: x509.Certificate) -> str:
    """Return the one common name of a certificate's subject, or the empty string."""
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def _name(certificate: x509.Certificate) -> str:
    return repr(common_name(certificate) or certificate.subject.rfc4514_string())
