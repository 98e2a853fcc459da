"""What a signed enclave measures: the SIGSTRUCT that ``gramine-sgx-sign`` writes.

Source: Intel, Software Developer's Manual, volume 3D, table "Layout of Enclave Signature Structure (SIGSTRUCT)".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from siniantrust.errors import AttestationError

SIZE_BYTES = 1808
_HEADER = bytes.fromhex("06000000e10000000000010000000000")
_HEADER_2 = bytes.fromhex("01010000600000006000000001000000")
_MODULUS = slice(128, 512)
_ATTRIBUTES_AT = 928
_DEBUG = 2
_ENCLAVE_HASH = slice(960, 992)
_PRODUCT = slice(1024, 1026)
_VERSION = slice(1026, 1028)


@dataclass(frozen=True, slots=True)
class Sigstruct:
    """The reference values in a SIGSTRUCT; digests in hexadecimal."""

    mrenclave: str
    mrsigner: str
    isv_prod_id: int
    isv_svn: int


def parse_sigstruct(raw: bytes, *, origin: str) -> Sigstruct:
    """Read a SIGSTRUCT; its signature is the processor's to check.

    Raises:
        AttestationError: if it is none, or of an enclave that may be debugged.
    """
    if len(raw) != SIZE_BYTES or raw[:16] != _HEADER or raw[24:40] != _HEADER_2:
        raise AttestationError(f"{origin}: expected {SIZE_BYTES} bytes of an SGX signature, found {len(raw)} others")
    if raw[_ATTRIBUTES_AT] & _DEBUG:
        raise AttestationError(f"{origin}: the enclave may be debugged; write sgx.debug = false and sign it again")
    return Sigstruct(
        mrenclave=raw[_ENCLAVE_HASH].hex(),
        mrsigner=hashlib.sha256(raw[_MODULUS]).hexdigest(),
        isv_prod_id=int.from_bytes(raw[_PRODUCT], "little"),
        isv_svn=int.from_bytes(raw[_VERSION], "little"),
    )


def reference_toml(found: Sigstruct) -> str:
    """Return the reference file for exactly this enclave, on platforms that are up to date."""
    return (
        'kind = "sgx"\n\n[accepted]\n'
        f'mrenclave = ["{found.mrenclave}"]\n'
        f'isv-prod-id = ["{found.isv_prod_id}"]\n'
        'tcb-status = ["UpToDate"]\n\n'
        f"[at_least]\nisv-svn = {found.isv_svn}\n"
    )
