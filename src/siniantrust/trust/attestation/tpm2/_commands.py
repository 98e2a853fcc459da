"""The TPM's commands as functions (TPM 2.0 Library, Part 3). Objects and sessions are flushed when their block ends."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from siniantrust.trust.attestation.tpm2._codes import NO_SUCH_HANDLE, TpmError
from siniantrust.trust.attestation.tpm2._constants import (
    SHA256_BYTES,
    Algorithm,
    Command,
    Handle,
)
from siniantrust.trust.attestation.tpm2._device import Tpm
from siniantrust.trust.attestation.tpm2._pcr import encode_selection, read_selection
from siniantrust.trust.attestation.tpm2._public import PublicArea, parse_public
from siniantrust.trust.attestation.tpm2._wire import MAX_BYTES, Reader, Session, sized, uint

_POLICY_SESSION = 1
_NONCE_BYTES = 32
_PCRS_AT_ONCE = 8
_NV_PIECE_BYTES = 512
_NO_SENSITIVE = sized(sized(b"") + sized(b""))
_NO_CREATION_PCRS = sized(b"") + uint(4, 0)
PASSWORD = (Session(),)


@contextmanager
def flushed(tpm: Tpm, handle: int) -> Iterator[int]:
    """Yield a handle and flush it in the end, unless the TPM is lost and has forgotten it anyway."""
    try:
        yield handle
    finally:
        if tpm.alive:
            tpm.call(Command.FLUSH_CONTEXT, parameters=uint(4, handle))


@contextmanager
def primary(tpm: Tpm, hierarchy: Handle, template: PublicArea) -> Iterator[tuple[int, PublicArea]]:
    """Yield the primary key that the TPM derives from its seed and ``template``: handle and public area."""
    parameters = _NO_SENSITIVE + sized(template.encode()) + _NO_CREATION_PCRS
    (handle,), raw = tpm.call(Command.CREATE_PRIMARY, [hierarchy], parameters, sessions=PASSWORD, response_handles=1)
    with flushed(tpm, handle):
        yield handle, parse_public(Reader(raw, "primary key").sized(at_most=MAX_BYTES))


@contextmanager
def policy_session(tpm: Tpm) -> Iterator[int]:
    """Yield the handle of a policy session without a key: it proves what the TPM itself checks, and hides nothing."""
    parameters = b"".join(
        (
            sized(os.urandom(_NONCE_BYTES)),
            sized(b""),
            uint(1, _POLICY_SESSION),
            uint(2, Algorithm.NULL),
            uint(2, Algorithm.SHA256),
        )
    )
    (handle,), _ = tpm.call(Command.START_AUTH_SESSION, [Handle.NULL, Handle.NULL], parameters, response_handles=1)
    with flushed(tpm, handle):
        yield handle


def policy_endorsement(tpm: Tpm, session: int) -> None:
    """Satisfy the standard endorsement key's policy: the endorsement hierarchy's password, which is empty."""
    parameters = sized(b"") * 3 + uint(4, 0)
    tpm.call(Command.POLICY_SECRET, [Handle.ENDORSEMENT, session], parameters, sessions=PASSWORD)


def policy_pcr(tpm: Tpm, session: int, pcrs: Collection[int]) -> None:
    """Put the present values of registers into a policy."""
    tpm.call(Command.POLICY_PCR, [session], sized(b"") + encode_selection(pcrs))


def pcr_extend(tpm: Tpm, pcr: int, digest: bytes) -> None:
    """Extend a register of the SHA-256 bank."""
    parameters = uint(4, 1) + uint(2, Algorithm.SHA256) + digest
    tpm.call(Command.PCR_EXTEND, [pcr], parameters, sessions=PASSWORD)


def pcr_read(tpm: Tpm, pcrs: Collection[int]) -> dict[int, bytes]:
    """Return the values of registers of the SHA-256 bank.

    Raises:
        TpmError: if the TPM does not have all of them.
    """
    wanted = sorted(set(pcrs))
    values: dict[int, bytes] = {}
    for start in range(0, len(wanted), _PCRS_AT_ONCE):
        some = wanted[start : start + _PCRS_AT_ONCE]
        _, raw = tpm.call(Command.PCR_READ, parameters=encode_selection(some))
        reader = Reader(raw, "PCR values")
        reader.uint(4)  # counts changes
        if read_selection(reader) != set(some):
            raise reader.fault(f"the values of PCRs {some} of the SHA-256 bank", "others; switch that bank on")
        reader.expect(4, len(some), "number of values")
        values |= {pcr: reader.exactly(SHA256_BYTES, "a value") for pcr in some}
        reader.end()
    return values


def quote(tpm: Tpm, key: int, extra_data: bytes, pcrs: Collection[int]) -> bytes:
    """Return a signed statement about registers: TPM2B_ATTEST and TPMT_SIGNATURE."""
    parameters = sized(extra_data) + uint(2, Algorithm.NULL) + encode_selection(pcrs)
    return tpm.call(Command.QUOTE, [key], parameters, sessions=PASSWORD)[1]


def activate_credential(tpm: Tpm, *, ak: int, ek: int, blob: bytes, secret: bytes) -> bytes:
    """Return what a credential holds, which the TPM gives only if both keys live in it.

    Args:
        tpm: the TPM.
        ak: handle of the key that the credential names.
        ek: handle of the key that it is encrypted to.
        blob: the encrypted credential (TPMS_ID_OBJECT).
        secret: the encrypted seed (TPMU_ENCRYPTED_SECRET).
    """
    with policy_session(tpm) as session:
        policy_endorsement(tpm, session)
        _, raw = tpm.call(
            Command.ACTIVATE_CREDENTIAL,
            [ak, ek],
            sized(blob) + sized(secret),
            sessions=[Session(), Session(session)],
        )
    reader = Reader(raw, "credential")
    credential = reader.sized(at_most=SHA256_BYTES)
    reader.end()
    return credential


def nv_public(tpm: Tpm, index: int) -> bytes | None:
    """Return the public area of an NV index (TPMS_NV_PUBLIC), or ``None`` if there is no such index."""
    try:
        _, raw = tpm.call(Command.NV_READ_PUBLIC, [index])
    except TpmError as refused:
        if refused.code == NO_SUCH_HANDLE:
            return None
        raise
    return Reader(raw, "NV index").sized(at_most=MAX_BYTES)


def nv_size(public: bytes) -> int:
    """Return how many bytes an NV index holds, from its public area."""
    return int.from_bytes(public[-2:], "big")


def nv_read(tpm: Tpm, index: int, size_bytes: int) -> bytes:
    """Return what an NV index holds, in pieces that every TPM can give."""
    content = b""
    while len(content) < size_bytes:
        piece_bytes = min(_NV_PIECE_BYTES, size_bytes - len(content))
        parameters = uint(2, piece_bytes) + uint(2, len(content))
        _, raw = tpm.call(Command.NV_READ, [index, index], parameters, sessions=PASSWORD)
        reader = Reader(raw, "NV content")
        content += reader.exactly(piece_bytes, "a piece")
        reader.end()
    return content
