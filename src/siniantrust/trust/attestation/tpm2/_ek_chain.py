"""From an endorsement key to an anchor of the Relying Party: what makes a TPM one that somebody vouches for.

An anchor's name says what it stands for: ``hardware:NAME`` for a maker of TPMs, ``emulated:NAME`` for the authority of
an emulator. It is a certificate that chains may end in, or, for a TPM without a certificate, the endorsement key itself
(DER, SubjectPublicKeyInfo).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from siniantrust.errors import AttestationError
from siniantrust.trust._labels import Provenance
from siniantrust.trust.attestation._certificates import check_signature_form
from siniantrust.trust.attestation.tpm2._identity import Identity

ENROLMENT_PREFIX = "enrolment:"
_PREFIXES = {"hardware:": Provenance.HARDWARE, "emulated:": Provenance.EMULATED}
_EK_CERTIFICATE_USAGE = x509.ObjectIdentifier("2.23.133.8.1")


def anchor_provenance(name: str) -> Provenance:
    """Return what the devices under an anchor are.

    Raises:
        AttestationError: if the anchor's name does not say so.
    """
    for prefix, provenance in _PREFIXES.items():
        if name.startswith(prefix):
            return provenance
    expected = ", ".join((*_PREFIXES, ENROLMENT_PREFIX))
    raise AttestationError(f"TPM anchor {name!r}: expected a name that starts with one of: {expected}")


def verify_endorsement(identity: Identity, anchors: Mapping[str, bytes], now: datetime) -> str:
    """Return the name of the anchor that vouches for an endorsement key at time ``now`` (aware).

    Raises:
        AttestationError: if none does, or the certificate is expired, malformed or another key's.
    """
    key = identity.ek.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    certificates: dict[str, x509.Certificate] = {}
    for name, raw in anchors.items():
        if name.startswith(ENROLMENT_PREFIX):
            continue
        anchor_provenance(name)
        if raw == key and identity.certificate is None:
            return name
        certificate = _load_anchor(name, raw)
        if certificate is not None:
            certificates[name] = certificate
    if identity.certificate is None:
        raise AttestationError(
            "TPM endorsement key: expected a certificate or an anchor that is the key itself, found neither; if you "
            "know this TPM, add its endorsement key to the anchors"
        )
    leaf = _load(identity.certificate, "endorsement certificate")
    if _public_key(leaf) != key:
        raise AttestationError("TPM endorsement certificate: it is for another key than the TPM's")
    between = [_load(raw, f"intermediate certificate {place}") for place, raw in enumerate(identity.intermediates)]
    chain = _chain(leaf, between, list(certificates.values()), now)
    if chain[1:-1] != between:
        raise AttestationError("TPM endorsement certificate: its chain does not need the certificates that came along")
    return next(name for name, anchor in certificates.items() if anchor == chain[-1])


def _load(raw: bytes, what: str) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(raw)
        check_signature_form(certificate)
        return certificate  # noqa: TRY300 - the two steps fail alike
    except (ValueError, x509.InvalidVersion) as fault:
        raise AttestationError(f"TPM {what}: expected a certificate in DER, found a fault in it ({fault})") from None


def _public_key(certificate: x509.Certificate) -> bytes | None:
    """Return a certificate's key in DER, or ``None`` if it is of an unknown kind."""
    try:
        return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        return None


def _load_anchor(name: str, raw: bytes) -> x509.Certificate | None:
    """Return an anchor's certificate, or ``None`` if it is the endorsement key of some TPM."""
    try:
        load_der_public_key(raw)
    except (ValueError, UnsupportedAlgorithm):
        return _load(raw, f"anchor {name!r}")
    return None


def _chain(
    leaf: x509.Certificate, between: list[x509.Certificate], anchors: list[x509.Certificate], now: datetime
) -> list[x509.Certificate]:
    """Return the path from an endorsement certificate to an anchor.

    Endorsement certificates have an empty subject, an alternative name that names the TPM's maker, and a usage of their
    own, none of which the rules for the web know.
    """
    if not anchors:
        raise AttestationError("TPM endorsement certificate: the reference values name no anchor; nothing vouches")
    names = ExtensionPolicy.webpki_defaults_ee().may_be_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    leaf_policy = names.require_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _check_usage)
    builder = PolicyBuilder().store(Store(anchors)).time(now.astimezone(UTC).replace(tzinfo=None))
    verifier = builder.extension_policies(
        ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=leaf_policy
    ).build_client_verifier()
    try:
        return verifier.verify(leaf, between).chain
    except (VerificationError, ValueError) as fault:
        raise AttestationError(
            f"TPM endorsement certificate: no anchor vouches for it at {now:%Y-%m-%d %H:%M} ({fault})"
        ) from None


def _check_usage(_policy: Policy, _certificate: x509.Certificate, usage: x509.ExtendedKeyUsage) -> None:
    if _EK_CERTIFICATE_USAGE not in usage:
        raise ValueError("its usage is not that of an endorsement key")
