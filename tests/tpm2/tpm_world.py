"""A deployment over an emulated TPM, and authorities, evidence and statements that are not what they should be."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from siniantrust.trust.attestation import AttestationResult, EvidenceBundle, ReferenceValues, bind
from siniantrust.trust.attestation.tpm2 import (
    Event,
    EventLog,
    Identity,
    PendingEnrolment,
    Tpm,
    Tpm2Attester,
    Tpm2Verifier,
    accepted_events,
    begin_enrolment,
)
from siniantrust.trust.attestation.tpm2._attest import qualified_name
from siniantrust.trust.attestation.tpm2._constants import Command, Handle, NvAttributes
from siniantrust.trust.attestation.tpm2._credential import make_challenge
from siniantrust.trust.attestation.tpm2._pcr import BOOT_PCRS, composite, encode_selection
from siniantrust.trust.attestation.tpm2._public import AK_TEMPLATE, PublicArea
from siniantrust.trust.attestation.tpm2._wire import Session, sized, uint

NOW = datetime(2031, 5, 4, 12, tzinfo=UTC)
BINDING = bind(b"n" * 32, b"the enclave's public key")
EVENTS = (Event("enclave", b"e" * 32), Event("bundle", b"b" * 32))
PCR = 14
ENROLLER = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
ANY_CLOCK = {"clock-ms": 0, "reset-count": 0, "restart-count": 0}
# Nothing boots an emulator: its registers hold zeros.
BOOT = {f"pcr-{pcr}": frozenset({"00" * 32}) for pcr in BOOT_PCRS}


def need(*programs: str) -> None:
    """Skip the test if one of the programs is not installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian: swtpm, swtpm-tools)")


def key_bytes(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    """Return the public half in DER."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class Authority:
    """A certificate authority: a root, and an issuer under it that certifies endorsement keys."""

    def __init__(self, name: str) -> None:
        self._root, self._issuer = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self._name = name
        self.root = self._certify(self._root, f"{name} root", self._root, f"{name} root").public_bytes(Encoding.DER)
        self.issuer = self._certify(self._issuer, name, self._root, f"{name} root").public_bytes(Encoding.DER)

    @staticmethod
    def _name_of(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])

    def _certify(
        self, key: ec.EllipticCurvePrivateKey, subject: str, signer: ec.EllipticCurvePrivateKey, issuer: str
    ) -> x509.Certificate:
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        builder = self._builder(subject, issuer, signer, days=3650)
        builder = builder.public_key(key.public_key()).add_extension(usage, critical=True)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        return builder.sign(signer, hashes.SHA256())

    def _builder(
        self, subject: str, issuer: str, signer: ec.EllipticCurvePrivateKey, *, days: int
    ) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(self._name_of(subject)).issuer_name(self._name_of(issuer))
        builder = builder.not_valid_before(NOW - timedelta(days=30)).not_valid_after(NOW + timedelta(days=days))
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        return builder.serial_number(x509.random_serial_number()).add_extension(identifier, critical=False)

    def certify_ek(self, ek: PublicArea, *, usage: str = "2.23.133.8.1", key: Ed25519PublicKey | None = None) -> bytes:
        """Return an endorsement certificate in DER, in the form that makers of TPMs give it."""
        maker = x509.DirectoryName(
            x509.Name([x509.NameAttribute(x509.ObjectIdentifier("2.23.133.2.1"), "id:53494E00")])
        )
        builder = self._builder("", self._name, self._issuer, days=365).public_key(key or ek.public_key())
        builder = builder.add_extension(x509.SubjectAlternativeName([maker]), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier(usage)]), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        return builder.sign(self._issuer, hashes.SHA256()).public_bytes(Encoding.DER)


class MakersCommand(IntEnum):
    """Commands that the product does not need."""

    NV_UNDEFINE_SPACE = 0x122
    NV_WRITE = 0x137


def store_certificate(tpm: Tpm, certificate: bytes, *, index: int = 0x01C0000A) -> None:
    """Write an endorsement certificate to where a TPM's maker puts it, and pad it as some makers do."""
    attributes = NvAttributes.OWNER_WRITE | NvAttributes.OWNER_READ | NvAttributes.AUTH_READ | NvAttributes.NO_DA
    padded = certificate + b"\xff" * 40
    public = uint(4, index) + uint(2, 0x0B) + uint(4, attributes) + sized(b"") + uint(2, len(padded))
    tpm.call(Command.NV_DEFINE_SPACE, [Handle.OWNER], sized(b"") + sized(public), sessions=[Session()])
    for start in range(0, len(padded), 500):
        piece = sized(padded[start : start + 500]) + uint(2, start)
        tpm.call(MakersCommand.NV_WRITE, [Handle.OWNER, index], piece, sessions=[Session()])


def certified_attester(tpm: Tpm, authority: Authority) -> Tpm2Attester:
    """Return the Attester of a TPM whose endorsement key on P-256 ``authority`` certified."""
    store_certificate(tpm, authority.certify_ek(Tpm2Attester(tpm).identity().ek))
    return Tpm2Attester(tpm, pcr=PCR, intermediates=[authority.issuer])


@dataclass(frozen=True)
class World:
    """An enrolled Attester that measured ``EVENTS``, and what a Relying Party expects of it."""

    attester: Tpm2Attester
    reference: ReferenceValues

    def evidence(self, binding: bytes = BINDING) -> EvidenceBundle:
        """Return fresh evidence."""
        return self.attester.evidence(binding)

    def appraise(self, evidence: EvidenceBundle, reference: ReferenceValues | None = None) -> AttestationResult:
        """Appraise evidence against ``reference``, or what this world expects."""
        return appraise(evidence, reference or self.reference)


def appraise(
    evidence: EvidenceBundle, reference: ReferenceValues, *, binding: bytes = BINDING, now: datetime = NOW
) -> AttestationResult:
    """Appraise evidence as a Relying Party of these tests does."""
    return Tpm2Verifier(pcr=PCR).appraise(evidence, binding=binding, reference=reference, now=now)


def enrol(attester: Tpm2Attester, anchors: Mapping[str, bytes]) -> None:
    """Enrol an Attester and let it keep the record."""
    pending = begin_enrolment(attester.identity(), anchors=anchors, now=NOW)
    attester.enrolment = pending.complete(attester.activate(pending.challenge), signing_key=ENROLLER, now=NOW)


def make_world(attester: Tpm2Attester, anchors: Mapping[str, bytes]) -> World:
    """Measure and enrol."""
    for event in EVENTS:
        attester.measure(event)
    enrol(attester, anchors)
    return World(attester, make_reference(anchors))


def make_reference(anchors: Mapping[str, bytes]) -> ReferenceValues:
    """Return reference values that admit ``EVENTS`` at any clock."""
    return ReferenceValues(
        kind="tpm2",
        accepted=accepted_events(EVENTS) | BOOT,
        at_least=ANY_CLOCK,
        anchors={**anchors, "enrolment:us": key_bytes(ENROLLER)},
    )


def with_endorsements(evidence: EvidenceBundle, **changed: bytes | None) -> EvidenceBundle:
    """Return evidence with endorsements replaced, or left out where they are ``None``; ``_`` stands for ``-``."""
    endorsements = {**evidence.endorsements}
    for name, value in changed.items():
        endorsements.pop(name.replace("_", "-"), None)
        if value is not None:
            endorsements[name.replace("_", "-")] = value
    return replace(evidence, endorsements=endorsements)


def ecc_area(key: ec.EllipticCurvePrivateKey, template: PublicArea) -> PublicArea:
    """Return the public area of a key of software that looks like one of a TPM."""
    numbers = key.public_key().public_numbers()
    return replace(template, unique=tuple(number.to_bytes(32, "big") for number in (numbers.x, numbers.y)))


def sign_statement(key: ec.EllipticCurvePrivateKey, statement: bytes) -> bytes:
    """Return a statement and a signature in the form of a TPM."""
    numbers = decode_dss_signature(key.sign(statement, ec.ECDSA(hashes.SHA256())))
    return sized(statement) + uint(2, 0x18) + uint(2, 0x0B) + b"".join(sized(n.to_bytes(32, "big")) for n in numbers)


LIED = {**dict.fromkeys(BOOT_PCRS, bytes(32)), PCR: EventLog(EVENTS).value()}


class SoftwareTpm:
    """A liar: it writes what a TPM would, and signs it with a key of software."""

    def __init__(self, ek: PublicArea, template: PublicArea = AK_TEMPLATE) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.identity = Identity(ak=ecc_area(self.key, template), ek=ek, certificate=None)

    def statement(self, **changed: bytes) -> bytes:
        """Return a quote over ``EVENTS``, with fields replaced."""
        fields = {
            "magic": uint(4, 0xFF544347),
            "kind": uint(2, 0x8018),
            "signer": sized(qualified_name(self.identity.ak)),
            "extra": sized(hashlib.sha256(BINDING).digest()),
            "clock": uint(8, 1000) + uint(4, 1) + uint(4, 0),
            "safe": b"\x01",
            "firmware": uint(8, 1),
            "selection": encode_selection(LIED),
            "digest": sized(composite(LIED)),
        }
        assert changed.keys() <= fields.keys()
        return b"".join((fields | changed).values())

    def evidence(self, statement: bytes, **endorsements: bytes) -> EvidenceBundle:
        """Return evidence with a statement that it signs."""
        registers = {f"pcr-{pcr}": bytes(32) for pcr in BOOT_PCRS}
        whole = {**self.identity.endorsements(), **registers, "event-log": EventLog(EVENTS).encode(), **endorsements}
        return EvidenceBundle(kind="tpm2", body=sign_statement(self.key, statement), endorsements=whole)

    def enrolment(self) -> bytes:
        """Return a record that an enroller signed who did not ask the TPM."""
        answer = os.urandom(32)
        challenge = make_challenge(self.identity.ek, self.identity.ak.name, answer)
        pending = PendingEnrolment(self.identity, "emulated:x", challenge, answer)
        return pending.complete(answer, signing_key=ENROLLER, now=NOW)
