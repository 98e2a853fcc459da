"""Platform configuration registers: which ones, and what their digests come to."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation.tpm2._constants import Algorithm
from siniantrust.trust.attestation.tpm2._wire import Reader, uint

# Those that only a reset of the machine sets back; 16 and up can be set back while it runs.
STATIC_PCRS = range(16)
DEFAULT_PCR = 14
# Firmware, its extensions, boot loader, and the policy of secure boot: what starts whatever measures later.
BOOT_PCRS = (0, 2, 4, 7)
START = bytes(32)
_SELECT_BYTES = 3


def check_pcrs(pcrs: Collection[int]) -> None:
    """Refuse registers that software can set back.

    Raises:
        AttestationError: naming the register.
    """
    for pcr in pcrs:
        if pcr not in STATIC_PCRS:
            raise AttestationError(f"TPM: expected PCRs of 0 to 15, which only a reset sets back, found {pcr}")


def encode_selection(pcrs: Collection[int]) -> bytes:
    """Return the selection of ``pcrs`` in the SHA-256 bank (TPML_PCR_SELECTION)."""
    bits = sum(1 << pcr for pcr in set(pcrs)).to_bytes(_SELECT_BYTES, "little")
    return uint(4, 1) + uint(2, Algorithm.SHA256) + uint(1, _SELECT_BYTES) + bits


def read_selection(reader: Reader) -> frozenset[int]:
    """Read a selection, which must be of the SHA-256 bank only."""
    reader.expect(4, 1, "number of PCR banks")
    reader.expect(2, Algorithm.SHA256, "PCR bank")
    reader.expect(1, _SELECT_BYTES, "size of the selection")
    bits = int.from_bytes(reader.take(_SELECT_BYTES), "little")
    return frozenset(pcr for pcr in range(8 * _SELECT_BYTES) if bits >> pcr & 1)


def extend(value: bytes, digest: bytes) -> bytes:
    """Return a register's value after one more digest."""
    return hashlib.sha256(value + digest).digest()


def composite(values: Mapping[int, bytes]) -> bytes:
    """Return the digest over the values of several registers, lowest number first."""
    return hashlib.sha256(b"".join(values[pcr] for pcr in sorted(values))).digest()
