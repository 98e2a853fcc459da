"""Sealing: a key that a TPM gives back only while its registers hold the values that it was sealed to.

What a key is sealed to comes from reference values, not from the registers as they are: so the key can be sealed before
what it is for was ever measured. It travels to the TPM and back in the clear; the kernel and the bus see it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from siniantrust.errors import TrustError
from siniantrust.trust.attestation.tpm2 import _commands
from siniantrust.trust.attestation.tpm2._codes import TpmError
from siniantrust.trust.attestation.tpm2._constants import Algorithm, Attributes, Command, Handle
from siniantrust.trust.attestation.tpm2._device import Tpm
from siniantrust.trust.attestation.tpm2._pcr import check_pcrs, composite, encode_selection, read_selection
from siniantrust.trust.attestation.tpm2._public import STORAGE_TEMPLATE
from siniantrust.trust.attestation.tpm2._wire import MAX_BYTES, Reader, Session, sized, uint

MAX_SECRET_BYTES = 128
_MAGIC = b"SNTPM2\x00\x01"
_ATTRIBUTES = Attributes.FIXED_TPM | Attributes.FIXED_PARENT | Attributes.ADMIN_WITH_POLICY | Attributes.NO_DA


def seal(tpm: Tpm, secret: bytes, registers: Mapping[int, bytes]) -> bytes:
    """Seal a key to values of registers; the result is no secret, and of use with this TPM only.

    Args:
        tpm: the TPM.
        secret: 1 to 128 bytes.
        registers: values that the registers must hold when it is unsealed, for example ``EventLog.value()``.

    Raises:
        TrustError: if the secret is too long, or a register is one that software can set back.
    """
    if not 1 <= len(secret) <= MAX_SECRET_BYTES:
        raise TrustError(f"TPM seal: expected a secret of 1 to {MAX_SECRET_BYTES} bytes, found {len(secret)}")
    if not registers:
        raise TrustError("TPM seal: expected values of registers to seal to, found none")
    check_pcrs(registers)
    selection = encode_selection(registers)
    public = b"".join(
        (
            uint(2, Algorithm.KEYEDHASH),
            uint(2, Algorithm.SHA256),
            uint(4, _ATTRIBUTES),
            sized(_policy(selection, registers)),
            uint(2, Algorithm.NULL),
            sized(b""),
        )
    )
    parameters = sized(sized(b"") + sized(secret)) + sized(public) + sized(b"") + uint(4, 0)
    with _storage_key(tpm) as parent:
        _, raw = tpm.call(Command.CREATE, [parent], parameters, sessions=_commands.PASSWORD)
    reader = Reader(raw, "sealed object")
    private, public = reader.sized(at_most=MAX_BYTES), reader.sized(at_most=MAX_BYTES)
    return _MAGIC + selection + sized(private) + sized(public)


def unseal(tpm: Tpm, sealed: bytes) -> bytes:
    """Return the key that ``seal`` sealed.

    Raises:
        TpmError: if the registers hold other values now, or another TPM sealed it, or it was changed.
    """
    pcrs, objects = _parse(sealed)
    with _storage_key(tpm) as parent:
        (handle,), _ = tpm.call(Command.LOAD, [parent], objects, sessions=_commands.PASSWORD, response_handles=1)
        with _commands.flushed(tpm, handle), _commands.policy_session(tpm) as session:
            _commands.policy_pcr(tpm, session, pcrs)
            try:
                _, raw = tpm.call(Command.UNSEAL, [handle], sessions=[Session(session)])
            except TpmError as refused:
                raise TpmError(
                    f"{refused}; to give the key back, PCRs {sorted(pcrs)} must hold the values that it was sealed to: "
                    "nothing else measured, and nothing more",
                    refused.code,
                ) from None
    reader = Reader(raw, "unsealed key")
    secret = reader.sized(at_most=MAX_SECRET_BYTES)
    reader.end()
    return secret


def _parse(sealed: bytes) -> tuple[frozenset[int], bytes]:
    """Return the registers that a key is sealed to, and the two halves of the object that holds it."""
    reader = Reader(sealed, "sealed key")
    if reader.take(len(_MAGIC)) != _MAGIC:
        raise reader.fault("the form that seal writes", "another one")
    pcrs = read_selection(reader)
    objects = sized(reader.sized(at_most=MAX_BYTES)) + sized(reader.sized(at_most=MAX_BYTES))
    reader.end()
    return pcrs, objects


def _policy(selection: bytes, registers: Mapping[int, bytes]) -> bytes:
    """Return the digest of the policy that these registers hold these values (PolicyPCR, computed in software)."""
    return hashlib.sha256(bytes(32) + uint(4, Command.POLICY_PCR) + selection + composite(registers)).digest()


@contextmanager
def _storage_key(tpm: Tpm) -> Iterator[int]:
    with _commands.primary(tpm, Handle.OWNER, STORAGE_TEMPLATE) as (handle, _):
        yield handle
