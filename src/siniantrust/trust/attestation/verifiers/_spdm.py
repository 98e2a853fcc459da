"""The report of an NVIDIA GPU: an SPDM 1.1 request for measurements, and the signed response to it.

Source: DMTF, DSP0274 (SPDM) 1.1, GET_MEASUREMENTS and MEASUREMENTS; the opaque data's types are NVIDIA's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cryptography import x509

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation._certificates import check_p384_signature
from siniantrust.trust.attestation.verifiers._reader import Reader

NONCE_BYTES = 32
_MAX_BYTES = 64 << 10
_SIGNATURE_BYTES = 96
_REQUEST_BYTES = 37
_REQUEST_START = bytes([0x11, 0xE0])
_RESPONSE_START = bytes([0x11, 0x60])
_DMTF = 1
_OPAQUE_VBIOS, _OPAQUE_DRIVER, _OPAQUE_FWID = 6, 3, 20


@dataclass(frozen=True, slots=True)
class SpdmReport:
    """What a report says; nothing of it is to be believed before ``check_signature``.

    Attributes:
        nonce: the requester's nonce, 32 bytes.
        measurements: digests by index, which starts at 1.
        driver_version: as text.
        vbios_version: as text, in the form in which NVIDIA writes it.
        firmware_id: the digest of the firmware that the signing key belongs to; empty where the report has none.
        raw: the whole report.
    """

    nonce: bytes
    measurements: dict[int, bytes]
    driver_version: str
    vbios_version: str
    firmware_id: bytes
    raw: bytes

    def check_signature(self, certificate: x509.Certificate) -> None:
        """Check the signature over request and response (ECDSA on P-384 with SHA-384) under a certificate's key.

        Raises:
            AttestationError: if the key is of another kind or the signature is not the key's.
        """
        signature, half = self.raw[-_SIGNATURE_BYTES:], _SIGNATURE_BYTES // 2
        r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
        check_p384_signature(certificate, (r, s), self.raw[:-_SIGNATURE_BYTES], "nvidia-gpu report")


def parse_report(raw: bytes) -> SpdmReport:
    """Read a report, believing nothing of it.

    Raises:
        AttestationError: if it is not one request and one response of SPDM 1.1 and nothing else.
    """
    try:
        return _parse(raw)
    except (ValueError, EOFError) as fault:
        raise AttestationError(f"nvidia-gpu report: expected an SPDM 1.1 measurement report, found {fault}") from None


def _parse(raw: bytes) -> SpdmReport:
    if len(raw) > _MAX_BYTES:
        raise ValueError(f"{len(raw)} bytes")
    reader = Reader(raw)
    request = reader.take(_REQUEST_BYTES)
    response = reader.take(8)
    if not request.startswith(_REQUEST_START) or not response.startswith(_RESPONSE_START):
        raise ValueError("another message")
    record = Reader(reader.take(int.from_bytes(response[5:8], "little")))
    measurements = dict(_measurements(record, response[4]))
    reader.take(NONCE_BYTES)  # the responder's own nonce, which is only there to make the signature fresh
    opaque = dict(_opaque(Reader(reader.take(reader.number(2)))))
    reader.take(_SIGNATURE_BYTES)
    reader.end()
    return SpdmReport(
        nonce=request[4 : 4 + NONCE_BYTES],
        measurements=measurements,
        driver_version=opaque.get(_OPAQUE_DRIVER, b"").rstrip(b"\0").decode("ascii"),
        vbios_version=_vbios_version(opaque.get(_OPAQUE_VBIOS, b"")),
        firmware_id=opaque.get(_OPAQUE_FWID, b""),
        raw=raw,
    )


def _measurements(record: Reader, count: int) -> Iterator[tuple[int, bytes]]:
    for expected in range(1, count + 1):
        index, specification = record.take(2)
        if (index, specification) != (expected, _DMTF):
            raise ValueError(f"measurement block {index} of specification {specification} in place {expected}")
        block = Reader(record.take(record.number(2)))
        block.take(1)  # the kind of value
        yield index, block.take(block.number(2))
        block.end()
    record.end()


def _opaque(reader: Reader) -> Iterator[tuple[int, bytes]]:
    seen = set()
    while not reader.at_end():
        kind = reader.number(2)
        if kind in seen:
            raise ValueError(f"opaque data of type {kind} twice")
        seen.add(kind)
        yield kind, reader.take(reader.number(2))


def _vbios_version(raw: bytes) -> str:
    """Return the version as NVIDIA writes it: the first four bytes from the last to the first, then the fifth."""
    return ".".join(f"{byte:02X}" for byte in (*raw[3::-1], *raw[4:5]))
