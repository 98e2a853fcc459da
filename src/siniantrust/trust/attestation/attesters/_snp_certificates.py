"""The certificates that an SEV-SNP host hands its guests: the table in ``auxblob``.

Source: AMD, SEV-ES Guest-Hypervisor Communication Block Standardization (56421), section 4.1.8.1.
"""

from __future__ import annotations

import struct
from uuid import UUID

from siniantrust.errors import AttestationError

_ENTRY = struct.Struct("<16sII")
_END = bytes(16)
_NAMES = {
    "63da758d-e664-4564-adc5-f4b93be8accd": "vcek",
    "a8074bc2-a25a-483e-aae6-39c045a0b8a1": "vlek",
    "4ab7b379-bbac-4fe4-a02f-05aef327c782": "ask",
    "c0b406a4-a803-4952-9743-3fb6014cd0ae": "ark",
    "92f81bc3-5811-4d3d-97ff-d19f88dc67ea": "crl",
}


def read_certificates(table: bytes) -> dict[str, bytes]:
    """Return the certificates in a table, by the names that the Verifier of SEV-SNP reports gives them.

    Entries of other kinds are left out. Beside a ``vlek``, the signing certificate is called ``asvk``.

    Raises:
        AttestationError: if an entry points out of the table, or the table has no end.
    """
    found: dict[str, bytes] = {}
    for start in range(0, len(table) - _ENTRY.size + 1, _ENTRY.size):
        identifier, offset, size_bytes = _ENTRY.unpack_from(table, start)
        if identifier == _END:
            break
        certificate = table[offset : offset + size_bytes]
        if len(certificate) != size_bytes:
            raise AttestationError(f"sev-snp certificates: an entry of {size_bytes} bytes points out of the table")
        if (name := _NAMES.get(str(UUID(bytes=identifier)))) is not None:
            found[name] = certificate
    else:
        if table:
            raise AttestationError(f"sev-snp certificates: a table of {len(table)} bytes has no end")
    if "vlek" in found and "ask" in found:
        found["asvk"] = found.pop("ask")
    return found
