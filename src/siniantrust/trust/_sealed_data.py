"""Data that an enclave sealed, with the word of where that was: who keeps them can tell what the seal is worth."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field

from siniantrust.errors import TrustError
from siniantrust.trust._evidence import check_provenance
from siniantrust.trust._labels import Provenance

_MAGIC = b"SNDATA\x00\x01"
_HEAD = struct.Struct(">8sHH")
_FIELDS = ("provider", "provenance", "measurement")


@dataclass(frozen=True, slots=True)
class SealOrigin:
    """Which enclave sealed. A seal of a ``simulated`` one keeps nothing from the host, which has the key to it.

    Attributes:
        provider: its provider.
        provenance: where its claims come from; the seal is worth no more.
        measurement: what it was attested to be.
    """

    provider: str
    provenance: Provenance
    measurement: str

    def to_json(self) -> bytes:
        """Return it as the bytes that the seal is bound to."""
        return json.dumps({name: str(getattr(self, name)) for name in _FIELDS}, sort_keys=True).encode()


@dataclass(frozen=True, slots=True)
class SealedData:
    """What ``Enclave.seal`` returns. It may lie on an untrusted disk.

    Attributes:
        origin: which enclave sealed it; changing a letter of it breaks the seal.
        kept: what gives the key back to that enclave; no secret.
        ciphertext: the data, in the form of sealed weights.
    """

    origin: SealOrigin
    kept: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """Return it as bytes for a file."""
        origin = self.origin.to_json()
        return _HEAD.pack(_MAGIC, len(origin), len(self.kept)) + origin + self.kept + self.ciphertext

    @classmethod
    def from_bytes(cls, raw: bytes) -> SealedData:
        """Read what ``to_bytes`` returns; whether the seal is whole, only the enclave can tell.

        Raises:
            TrustError: if it has another form.
        """
        try:
            magic, origin_bytes, kept_bytes = _HEAD.unpack_from(raw)
            kept_at = _HEAD.size + origin_bytes
            ciphertext_at = kept_at + kept_bytes
            if magic != _MAGIC or len(raw) < ciphertext_at:
                raise ValueError(f"{len(raw)} other bytes")  # noqa: TRY301 - every fault takes the same exit below
            fields = json.loads(raw[_HEAD.size : kept_at])
            origin = SealOrigin(fields["provider"], Provenance(fields["provenance"]), fields["measurement"])
            if origin.to_json() != raw[_HEAD.size : kept_at]:
                raise ValueError("not its form")  # noqa: TRY301 - as above
        except (struct.error, ValueError, KeyError, TypeError, RecursionError) as fault:
            raise TrustError(f"sealed data: expected what an enclave sealed, found a fault in it ({fault})") from None
        return cls(origin, raw[kept_at:ciphertext_at], raw[ciphertext_at:])


def check_origin(sealed: SealedData, *, here: SealOrigin, accept: tuple[Provenance, ...]) -> None:
    """Refuse what an enclave need not even try to open.

    Raises:
        AttestationError: if the policy does not accept where it was sealed.
        TrustError: if another provider sealed it.
    """
    check_provenance(sealed.origin.provider, sealed.origin.provenance, accept)
    if sealed.origin.provider != here.provider:
        raise TrustError(
            f"sealed data: sealed by an enclave of provider '{sealed.origin.provider}', this one is of "
            f"'{here.provider}'; open them there"
        )


def not_opened(sealed: SealedData, *, here: SealOrigin, reason: str) -> TrustError:
    """Return the error for a seal that does not open, with both measurements."""
    return TrustError(
        f"sealed data: they do not open here ({reason}); measurement {sealed.origin.measurement[:80]} sealed them, "
        f"this enclave's is {here.measurement[:80]}"
    )
