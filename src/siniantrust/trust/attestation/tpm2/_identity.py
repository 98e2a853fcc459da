"""Who an Attester says it is: its attestation key, and the endorsement key of the TPM that it says it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation.tpm2._attest import check_ak
from siniantrust.trust.attestation.tpm2._public import PublicArea, ek_template, parse_public

_AK = "ak-public"
_EK = "ek-public"
_CERTIFICATE = "ek-certificate"
_INTERMEDIATE = "ek-intermediate-"
_MAX_INTERMEDIATES = 4
_MAX_CERTIFICATE_BYTES = 8 << 10
IDENTITY_NAMES = frozenset({_AK, _EK, _CERTIFICATE, *(f"{_INTERMEDIATE}{n}" for n in range(_MAX_INTERMEDIATES))})


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Public halves and certificates; nothing in it is secret, and by itself it proves nothing.

    Attributes:
        ak: public area of the attestation key.
        ek: public area of the endorsement key.
        certificate: the endorsement key's certificate in DER; ``None`` if the TPM has none.
        intermediates: certificates in DER between it and an anchor, in that order.
    """

    ak: PublicArea
    ek: PublicArea
    certificate: bytes | None
    intermediates: tuple[bytes, ...] = ()

    def endorsements(self) -> dict[str, bytes]:
        """Return it by the names that it has among the endorsements of evidence."""
        if len(self.intermediates) > _MAX_INTERMEDIATES:
            raise AttestationError(
                f"TPM identity: expected at most {_MAX_INTERMEDIATES} intermediate certificates, "
                f"found {len(self.intermediates)}"
            )
        certificates = {f"{_INTERMEDIATE}{place}": raw for place, raw in enumerate(self.intermediates)}
        if self.certificate is not None:
            certificates[_CERTIFICATE] = self.certificate
        return {_AK: self.ak.encode(), _EK: self.ek.encode(), **certificates}


def parse_identity(endorsements: Mapping[str, bytes]) -> Identity:
    """Read an identity from among the endorsements of evidence.

    Raises:
        AttestationError: if something of it is missing, malformed or no standard key.
    """
    for name in (_AK, _EK):
        if name not in endorsements:
            raise AttestationError(f"TPM evidence: it lacks the endorsement {name!r}")
    for name in IDENTITY_NAMES & endorsements.keys():
        if len(endorsements[name]) > _MAX_CERTIFICATE_BYTES:
            raise AttestationError(
                f"TPM evidence: expected {name!r} of at most {_MAX_CERTIFICATE_BYTES} bytes, "
                f"found {len(endorsements[name])}"
            )
    ak, ek = parse_public(endorsements[_AK]), parse_public(endorsements[_EK])
    check_ak(ak)
    if not ek.matches(ek_template(ek.kind)):
        raise AttestationError(
            f"TPM endorsement key: expected one of the standard template, found attributes {ek.attributes:#x}"
        )
    places = [f"{_INTERMEDIATE}{place}" for place in range(_MAX_INTERMEDIATES)]
    count = sum(place in endorsements for place in places)
    if not all(place in endorsements for place in places[:count]):
        raise AttestationError("TPM evidence: its intermediate certificates are not numbered from 0 on")
    return Identity(
        ak=ak,
        ek=ek,
        certificate=endorsements.get(_CERTIFICATE),
        intermediates=tuple(endorsements[place] for place in places[:count]),
    )
