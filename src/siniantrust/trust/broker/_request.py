"""A request for a key: what the enclave asks, and what its evidence is bound to."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from siniantrust.errors import ChannelError
from siniantrust.trust.attestation import EvidenceBundle, bind
from siniantrust.trust.attestation._bundle_file import evidence_from_json, evidence_to_json
from siniantrust.trust.tls import Identity, fingerprint, public_key_der

MAX_REQUEST_BYTES = 1 << 20
_FIELDS = {"key_id", "enclave_key", "recipient_key", "evidence", "signature"}
_DOMAIN = b"siniantrust key release 1\0"
_GIVING_UP_DOMAIN = b"siniantrust giving up 1\0"


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """Who asks for which key.

    Attributes:
        key_id: the key.
        enclave_key: the enclave's lasting public key (DER), which signs.
        recipient_key: the public key (DER) that the answer is to be encrypted to, used once.
        evidence: of the enclave, bound to all of this and to the broker's nonce and key.
        signature: of the same binding, by the enclave's key (ECDSA with SHA-256).
    """

    key_id: str
    enclave_key: bytes
    recipient_key: bytes
    evidence: EvidenceBundle
    signature: bytes

    @property
    def enclave(self) -> str:
        """SHA-256 of the enclave's key in hexadecimal: its name in the log."""
        return fingerprint(self.enclave_key)

    def binding(self, nonce: bytes, broker_key: bytes) -> bytes:
        """Return the 64 bytes that evidence and signature must carry."""
        return request_binding(
            nonce, broker_key, key_id=self.key_id, enclave_key=self.enclave_key, recipient_key=self.recipient_key
        )

    def is_signed(self, binding: bytes) -> bool:
        """Return whether who asks holds the enclave's key."""
        return _verifies(self.enclave_key, self.signature, binding)

    def recipient(self) -> ec.EllipticCurvePublicKey:
        """Return the key to encrypt to."""
        return _public_key(self.recipient_key)

    def to_json(self) -> bytes:
        """Return it as it travels."""
        return json.dumps(
            {
                "key_id": self.key_id,
                "enclave_key": base64.b64encode(self.enclave_key).decode(),
                "recipient_key": base64.b64encode(self.recipient_key).decode(),
                "evidence": base64.b64encode(evidence_to_json(self.evidence)).decode(),
                "signature": base64.b64encode(self.signature).decode(),
            }
        ).encode()


def request_binding(nonce: bytes, broker_key: bytes, *, key_id: str, enclave_key: bytes, recipient_key: bytes) -> bytes:
    """Return what evidence for a request is bound to: nonce, broker's key, key id and both keys of the enclave."""
    parts = (broker_key, key_id.encode(), enclave_key, recipient_key)
    return bind(nonce, _DOMAIN + b"".join(hashlib.sha256(part).digest() for part in parts))


def parse_request(raw: bytes | bytearray) -> KeyRequest:
    """Read a request, believing nothing of it.

    Raises:
        ChannelError: if it is malformed.
        AttestationError: if its evidence is malformed.
    """
    fields = parse_object(raw, _FIELDS)
    request = KeyRequest(
        key_id=fields["key_id"],
        enclave_key=_binary(fields["enclave_key"]),
        recipient_key=_binary(fields["recipient_key"]),
        evidence=evidence_from_json(_binary(fields["evidence"])),
        signature=_binary(fields["signature"]),
    )
    for key in (request.enclave_key, request.recipient_key):
        _plain_public_key(key)
    return request


def parse_object(raw: bytes | bytearray, names: set[str]) -> dict[str, Any]:
    """Read a JSON object of texts with exactly these names.

    Raises:
        ChannelError: if it is something else.
    """
    try:
        fields = json.loads(raw) if len(raw) <= MAX_REQUEST_BYTES else None
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or fields.keys() != names or not all(map(_is_text, fields.values())):
        raise ChannelError(f"key request: expected a JSON object of texts with {', '.join(sorted(names))}")
    return fields


def _is_text(value: object) -> bool:
    """Return whether a value of JSON is a text, in which it may write half a character."""
    return isinstance(value, str) and value.encode(errors="replace").decode() == value


@dataclass(frozen=True, slots=True)
class GivingUp:
    """An enclave's last word: it failed a check of its integrity, and is to get no key any more.

    Attributes:
        enclave_key: the enclave's lasting public key (DER), which signs.
        why: the check, in words.
        signature: of both, and of the broker's nonce and key (ECDSA with SHA-256).
    """

    enclave_key: bytes
    why: str
    signature: bytes

    @property
    def enclave(self) -> str:
        """SHA-256 of the enclave's key in hexadecimal: its name in the log."""
        return fingerprint(self.enclave_key)

    @classmethod
    def by(cls, identity: Identity, why: str, *, nonce: bytes, broker_key: bytes) -> GivingUp:
        """Return the signed notice of an enclave."""
        signed = _giving_up_binding(nonce, broker_key, identity.spki, why)
        return cls(identity.spki, why, identity.key.sign(signed, ec.ECDSA(SHA256())))

    def is_signed(self, nonce: bytes, broker_key: bytes) -> bool:
        """Return whether the enclave itself says so, in answer to this nonce."""
        return _verifies(
            self.enclave_key, self.signature, _giving_up_binding(nonce, broker_key, self.enclave_key, self.why)
        )

    def to_json(self) -> bytes:
        """Return it as it travels."""
        return json.dumps(
            {
                "gives_up": base64.b64encode(self.enclave_key).decode(),
                "why": self.why,
                "signature": base64.b64encode(self.signature).decode(),
            }
        ).encode()


def _giving_up_binding(nonce: bytes, broker_key: bytes, enclave_key: bytes, why: str) -> bytes:
    parts = (broker_key, enclave_key, why.encode())
    return bind(nonce, _GIVING_UP_DOMAIN + b"".join(hashlib.sha256(part).digest() for part in parts))


def parse_giving_up(raw: bytes | bytearray) -> GivingUp:
    """Read a notice, believing nothing of it.

    Raises:
        ChannelError: if it is malformed.
    """
    fields = parse_object(raw, {"gives_up", "why", "signature"})
    notice = GivingUp(_binary(fields["gives_up"]), fields["why"], _binary(fields["signature"]))
    _plain_public_key(notice.enclave_key)
    return notice


def new_request(
    identity: Identity, recipient: Identity, evidence: EvidenceBundle, *, key_id: str, binding: bytes
) -> KeyRequest:
    """Return the request of an enclave that has made evidence for ``binding``."""
    signature = identity.key.sign(binding, ec.ECDSA(SHA256()))
    return KeyRequest(key_id, identity.spki, recipient.spki, evidence, signature)


def _binary(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ChannelError("key request: a field is no base64") from None


def _verifies(key: bytes, signature: bytes, signed: bytes) -> bool:
    try:
        _public_key(key).verify(signature, signed, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _plain_public_key(key: bytes) -> None:
    """Refuse a key in another form than its plain one, so that an enclave has one name."""
    if public_key_der(_public_key(key)) != key:
        raise ChannelError("key request: a public key is not in its plain DER form")


def _public_key(der: bytes) -> ec.EllipticCurvePublicKey:
    try:
        key = load_der_public_key(der)
    except Exception:  # noqa: BLE001 - cryptography raises several classes, all of which mean the same here
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ChannelError("key request: expected a P-256 public key")
    return key
