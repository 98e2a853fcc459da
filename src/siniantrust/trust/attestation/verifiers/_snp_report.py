"""The attestation report of AMD SEV-SNP: its 1184 bytes, and the signature over them.

Source: AMD, SEV Secure Nested Paging Firmware ABI Specification (56860), table "ATTESTATION_REPORT"; versions 2 to 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from cryptography import x509

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation._certificates import check_p384_signature

REPORT_BYTES = 0x4A0
_SIGNED_BYTES = 0x2A0
_VERSIONS = range(2, 6)
_ECDSA_P384_SHA384 = 1
_SCALAR_BYTES = 48
_SCALAR_FIELD_BYTES = 72
_FIRST_VERSION_WITH_CPUID = 3
_TURIN_FAMILY = 0x1A
_TCB_OFFSETS = {"current": 0x38, "reported": 0x180, "committed": 0x1E0, "launch": 0x1F0}
# Which byte of TCB_VERSION holds which component.
_TCB_BYTES = {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}
_TCB_BYTES_TURIN = {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7}


class SigningKey(IntEnum):
    """Which key signed a report."""

    VCEK = 0
    VLEK = 1


@dataclass(frozen=True, slots=True)
class SnpReport:
    """What a report says; nothing of it is to be believed before ``check_signature``.

    Attributes:
        version: the report's own version.
        policy: the guest's policy, as a bit field.
        vmpl: the privilege level at which it was asked for; 0 is the highest.
        signing_key: which key signed it.
        chip_id_masked: whether the host hides the chip's identity.
        tcb: security versions by occasion (``reported``, ``committed``, ``current``, ``launch``) and component.
        report_data: what the guest asked to have signed, 64 bytes.
        chip_id: the chip, 64 bytes.
        guest_svn: the guest's own security version.
        digests: further fields, by name.
        raw: the whole report.
    """

    version: int
    policy: int
    vmpl: int
    signing_key: SigningKey
    chip_id_masked: bool
    tcb: dict[str, dict[str, int]]
    report_data: bytes
    chip_id: bytes
    guest_svn: int
    digests: dict[str, bytes]
    raw: bytes

    def check_signature(self, certificate: x509.Certificate) -> None:
        """Check the report's signature (ECDSA on P-384 with SHA-384) under a certificate's key.

        Raises:
            AttestationError: if the key is of another kind or the signature is not the key's.
        """
        r, s = (
            int.from_bytes(self.raw[start : start + _SCALAR_BYTES], "little")
            for start in (_SIGNED_BYTES, _SIGNED_BYTES + _SCALAR_FIELD_BYTES)
        )
        check_p384_signature(certificate, (r, s), self.raw[:_SIGNED_BYTES], "sev-snp report")


def parse_report(raw: bytes) -> SnpReport:
    """Read a report, believing nothing of it.

    Raises:
        AttestationError: if it has another length, an unknown version, algorithm or signing key, or if anything is
            written where the signature does not reach.
    """
    if len(raw) != REPORT_BYTES:
        raise AttestationError(f"sev-snp report: expected {REPORT_BYTES} bytes, found {len(raw)}")
    version = _number(raw, 0x00, 4)
    if version not in _VERSIONS:
        raise AttestationError(f"sev-snp report: expected version 2 to 5, found {version}")
    if (algorithm := _number(raw, 0x34, 4)) != _ECDSA_P384_SHA384:
        raise AttestationError(f"sev-snp report: expected signature algorithm 1 (ECDSA P-384), found {algorithm}")
    flags = _number(raw, 0x48, 4)
    try:
        signing_key = SigningKey(flags >> 2 & 0b111)
    except ValueError:
        raise AttestationError(f"sev-snp report: it is signed by no known key ({flags >> 2 & 0b111})") from None
    _check_unsigned_is_zero(raw)
    turin = version >= _FIRST_VERSION_WITH_CPUID and raw[0x188] == _TURIN_FAMILY
    layout = _TCB_BYTES_TURIN if turin else _TCB_BYTES
    return SnpReport(
        version=version,
        policy=_number(raw, 0x08, 8),
        vmpl=_number(raw, 0x30, 4),
        signing_key=signing_key,
        chip_id_masked=not any(raw[0x1A0:0x1E0]),
        tcb={
            occasion: {component: raw[start + place] for component, place in layout.items()}
            for occasion, start in _TCB_OFFSETS.items()
        },
        report_data=raw[0x50:0x90],
        chip_id=raw[0x1A0:0x1E0],
        guest_svn=_number(raw, 0x04, 4),
        digests={
            "family-id": raw[0x10:0x20],
            "image-id": raw[0x20:0x30],
            "platform-info": raw[0x40:0x48],
            "measurement": raw[0x90:0xC0],
            "host-data": raw[0xC0:0xE0],
            "id-key-digest": raw[0xE0:0x110],
            "author-key-digest": raw[0x110:0x140],
            "report-id": raw[0x140:0x160],
        },
        raw=raw,
    )


def _number(raw: bytes, start: int, size_bytes: int) -> int:
    return int.from_bytes(raw[start : start + size_bytes], "little")


def _check_unsigned_is_zero(raw: bytes) -> None:
    """Refuse a report that carries anything beside the two numbers of its signature."""
    r = raw[_SIGNED_BYTES + _SCALAR_BYTES : _SIGNED_BYTES + _SCALAR_FIELD_BYTES]
    rest = raw[_SIGNED_BYTES + _SCALAR_FIELD_BYTES + _SCALAR_BYTES :]
    if any(r) or any(rest):
        raise AttestationError("sev-snp report: expected zeros where nothing is signed, found something else")
