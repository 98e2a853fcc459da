"""The outer form of an Intel quote: where its certificate chain lies, with every length and kind as it must be.

Source: Intel, SGX DCAP ECDSA Quote Library API and TDX DCAP Quoting Library API; quote versions 3 to 5.
"""

from __future__ import annotations

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation.verifiers._reader import Reader

_HEADER_BYTES = 48
_ENCLAVE_REPORT_BYTES = 384
_TD_REPORT_BYTES = 584
_SIGNATURE_AND_KEY_BYTES = 128
_QE_REPORT_AND_SIGNATURE_BYTES = 384 + 64
_PCK_CHAIN, _QE_REPORT = 5, 6


def certificate_chain(body: bytes, what: str) -> bytes:
    """Return the chain (PEM) within a quote; ``what`` names it in errors.

    ``dcap-qvl`` 0.7 reads the same fields but lets some of them be anything; here each byte has one meaning. Only zeros
    may follow the quote, with which a driver fills its buffer up.

    Raises:
        AttestationError: if anything else is where it should not be.
    """
    try:
        return _chain(Reader(body))
    except (ValueError, EOFError) as fault:
        raise AttestationError(f"{what}: expected a quote with its certificate chain within, found {fault}") from None


def _chain(reader: Reader) -> bytes:
    header = reader.take(_HEADER_BYTES)
    version = int.from_bytes(header[:2], "little")
    reader.take(_report_bytes(version, header, reader))
    signed = Reader(reader.take(reader.number(4)))
    if reader.rest().strip(b"\0"):
        raise ValueError("something after its end")
    signed.take(_SIGNATURE_AND_KEY_BYTES)
    if version > 3:  # noqa: PLR2004 - version 3 has what follows without a frame around it
        signed = _framed(signed, _QE_REPORT)
    signed.take(_QE_REPORT_AND_SIGNATURE_BYTES)
    signed.take(signed.number(2))
    return _framed(signed, _PCK_CHAIN).rest().removesuffix(b"\0")


def _report_bytes(version: int, header: bytes, reader: Reader) -> int:
    if version == 5:  # noqa: PLR2004 - it says of what kind and how long its report is, which the library checks
        reader.take(2)
        return reader.number(4)
    return _TD_REPORT_BYTES if any(header[4:8]) else _ENCLAVE_REPORT_BYTES


def _framed(reader: Reader, kind: int) -> Reader:
    """Return what is left as one piece of certification data of that kind."""
    if (found := reader.number(2)) != kind:
        raise ValueError(f"certification data of kind {found} in place of {kind}")
    inner = Reader(reader.take(reader.number(4)))
    reader.end()
    return inner
