"""Making a credential in software (TPM2_MakeCredential; TPM 2.0 Library, Part 1, section 24).

A credential is encrypted to an endorsement key and names an attestation key. A TPM gives out what it holds only if it
has both: so whoever knows that has shown that the attestation key lives in the TPM of the endorsement key.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from siniantrust.trust.attestation.tpm2._constants import SHA256_BYTES
from siniantrust.trust.attestation.tpm2._public import COORDINATE_BYTES, PublicArea
from siniantrust.trust.attestation.tpm2._wire import sized

_AES_BYTES = 16
_IDENTITY = b"IDENTITY\0"


@dataclass(frozen=True, slots=True)
class AkChallenge:
    """What a Verifier sends: only the TPM of the endorsement key can answer it, and only for the key that it names.

    Attributes:
        blob: the encrypted credential (TPMS_ID_OBJECT).
        secret: the seed of its keys, encrypted to the endorsement key (TPMU_ENCRYPTED_SECRET).
    """

    blob: bytes = field(repr=False)
    secret: bytes = field(repr=False)


def make_challenge(ek: PublicArea, ak_name: bytes, answer: bytes) -> AkChallenge:
    """Encrypt ``answer`` (32 bytes) to an endorsement key, for the key with the name ``ak_name`` only."""
    seed, secret = _seed_for(ek)
    # A key is used for one credential: the seed is fresh, so that an initial vector of zeros, as TPMs have it, is safe.
    cipher = Cipher(algorithms.AES(_derive(seed, b"STORAGE", ak_name, _AES_BYTES)), CFB(bytes(_AES_BYTES))).encryptor()
    encrypted = cipher.update(sized(answer)) + cipher.finalize()
    integrity = hmac.HMAC(_derive(seed, b"INTEGRITY", b"", SHA256_BYTES), hashes.SHA256())
    integrity.update(encrypted + ak_name)
    return AkChallenge(sized(integrity.finalize()) + encrypted, secret)


def _seed_for(ek: PublicArea) -> tuple[bytes, bytes]:
    """Return a fresh seed, and the same encrypted to an endorsement key."""
    key = ek.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        ours = ec.generate_private_key(ec.SECP256R1())
        point = ours.public_key().public_numbers()
        x, y = (number.to_bytes(COORDINATE_BYTES, "big") for number in (point.x, point.y))
        shared = ours.exchange(ec.ECDH(), key)
        derivation = ConcatKDFHash(hashes.SHA256(), SHA256_BYTES, otherinfo=_IDENTITY + x + ek.unique[0])
        return derivation.derive(shared), sized(x) + sized(y)
    seed = os.urandom(SHA256_BYTES)
    oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=_IDENTITY)
    return seed, key.encrypt(seed, oaep)


def _derive(seed: bytes, label: bytes, context: bytes, size_bytes: int) -> bytes:
    """Derive a key as TPMs do (KDFa): NIST SP 800-108 in counter mode, with HMAC-SHA-256."""
    return KBKDFHMAC(
        algorithm=hashes.SHA256(),
        mode=Mode.CounterMode,
        length=size_bytes,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=label,
        context=context,
        fixed=None,
    ).derive(seed)
