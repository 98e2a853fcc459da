"""Public areas of keys (TPMT_PUBLIC), their names, and the templates that keys are made from.

Two kinds of key are known, each with SHA-256 as the hash of its name: RSA-2048 and ECC on NIST P-256. A key that stores
others or decrypts has AES-128 in CFB mode; a key that signs does so with ECDSA over SHA-256. Anything else is refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from siniantrust.trust.attestation.tpm2._constants import ECC_NIST_P256, Algorithm, Attributes
from siniantrust.trust.attestation.tpm2._wire import Reader, sized, uint

_RSA_BITS = 2048
_RSA_EXPONENT = 65537
COORDINATE_BYTES = 32
_AES_BITS = 128
_WHAT = "public area"


class KeyKind(StrEnum):
    """The algorithm of a key."""

    ECC_P256 = "ecc-p256"
    RSA_2048 = "rsa-2048"


_TYPE = {KeyKind.ECC_P256: Algorithm.ECC, KeyKind.RSA_2048: Algorithm.RSA}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicArea:
    """The public area of a key.

    Attributes:
        kind: its algorithm.
        attributes: what it may do.
        policy: digest of the policy that authorises its use; empty without one.
        signs: whether its scheme is ECDSA over SHA-256; otherwise it has no scheme and a symmetric cipher for children.
        unique: the modulus, or the two coordinates; in a template, what distinguishes keys of one template.
    """

    kind: KeyKind
    attributes: Attributes
    policy: bytes = b""
    signs: bool = False
    unique: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Return the structure's bytes."""
        symmetric = [Algorithm.NULL] if self.signs else [Algorithm.AES, _AES_BITS, Algorithm.CFB]
        scheme = [Algorithm.ECDSA, Algorithm.SHA256] if self.signs else [Algorithm.NULL]
        details = uint(2, ECC_NIST_P256) + uint(2, Algorithm.NULL)  # curve, no key derivation
        if self.kind is KeyKind.RSA_2048:
            details = uint(2, _RSA_BITS) + uint(4, 0)  # zero stands for the exponent 65537
        return b"".join(
            (
                uint(2, _TYPE[self.kind]),
                uint(2, Algorithm.SHA256),
                uint(4, self.attributes),
                sized(self.policy),
                *(uint(2, number) for number in symmetric + scheme),
                details,
                *(sized(part) for part in self.unique),
            )
        )

    @property
    def name(self) -> bytes:
        """The key's name: the hash algorithm and the SHA-256 of the public area."""
        return uint(2, Algorithm.SHA256) + hashlib.sha256(self.encode()).digest()

    def public_key(self) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
        """Return the key itself.

        Raises:
            TpmError: if its numbers are no key.
        """
        numbers = [int.from_bytes(part, "big") for part in self.unique]
        try:
            if self.kind is KeyKind.ECC_P256:
                x, y = numbers
                return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
            return rsa.RSAPublicNumbers(_RSA_EXPONENT, numbers[0]).public_key()
        except ValueError as fault:
            raise Reader(b"", _WHAT).fault(f"numbers of an {self.kind} key", fault) from None

    def matches(self, template: PublicArea) -> bool:
        """Whether this key was made from ``template``: everything but its numbers is the same."""
        return replace(self, unique=template.unique) == template


def parse_public(raw: bytes) -> PublicArea:
    """Read a key's public area.

    Raises:
        TpmError: if it is malformed, or another kind of key.
    """
    reader = Reader(raw, _WHAT)
    number = reader.uint(2)
    kinds = [kind for kind, value in _TYPE.items() if value == number]
    if not kinds:
        raise reader.fault("a key on P-256 or for RSA", f"type {number:#x}")
    reader.expect(2, Algorithm.SHA256, "hash algorithm")
    attributes = Attributes(reader.uint(4))
    policy = reader.sized(at_most=COORDINATE_BYTES)
    signs = reader.uint(2) == Algorithm.NULL
    if not signs:
        reader.expect(2, _AES_BITS, "key size")
        reader.expect(2, Algorithm.CFB, "cipher mode")
    reader.expect(2, Algorithm.ECDSA if signs else Algorithm.NULL, "scheme")
    if signs:
        reader.expect(2, Algorithm.SHA256, "hash of the scheme")
    if kinds[0] is KeyKind.ECC_P256:
        reader.expect(2, ECC_NIST_P256, "curve")
        reader.expect(2, Algorithm.NULL, "key derivation")
        unique = tuple(reader.exactly(COORDINATE_BYTES, "a coordinate") for _ in range(2))
    else:
        reader.expect(2, _RSA_BITS, "modulus size")
        reader.expect(4, 0, "exponent")
        unique = (reader.exactly(_RSA_BITS // 8, "a modulus"),)
    reader.end()
    area = PublicArea(kind=kinds[0], attributes=attributes, policy=policy, signs=signs, unique=unique)
    if area.encode() != raw:
        raise reader.fault("AES as the symmetric cipher", "another one")
    return area


_ZEROS = {KeyKind.ECC_P256: (bytes(COORDINATE_BYTES),) * 2, KeyKind.RSA_2048: (bytes(_RSA_BITS // 8),)}
_FIXED = Attributes.FIXED_TPM | Attributes.FIXED_PARENT | Attributes.SENSITIVE_DATA_ORIGIN | Attributes.RESTRICTED
# PolicySecret of the endorsement hierarchy, which every standard endorsement key has.
_EK_POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")


def ek_template(kind: KeyKind) -> PublicArea:
    """Return the standard endorsement key (TCG EK Credential Profile 2.5, templates L-1 and L-2)."""
    return PublicArea(
        kind=kind,
        attributes=_FIXED | Attributes.ADMIN_WITH_POLICY | Attributes.DECRYPT,
        policy=_EK_POLICY,
        unique=_ZEROS[kind],
    )


# Primary keys are derived from the TPM's seed and this template: the same ones each time, and nothing is stored.
AK_TEMPLATE = PublicArea(
    kind=KeyKind.ECC_P256,
    attributes=_FIXED | Attributes.USER_WITH_AUTH | Attributes.NO_DA | Attributes.SIGN,
    signs=True,
    unique=(b"", b""),
)
STORAGE_TEMPLATE = PublicArea(
    kind=KeyKind.ECC_P256,
    attributes=_FIXED | Attributes.USER_WITH_AUTH | Attributes.NO_DA | Attributes.DECRYPT,
    unique=_ZEROS[KeyKind.ECC_P256],
)
