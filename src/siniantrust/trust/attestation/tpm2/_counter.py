"""Counters that go up only, so that an older version of a bundle is told from the newest."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path
from typing import Protocol, runtime_checkable

from siniantrust._files import write_atomic
from siniantrust.errors import TrustError
from siniantrust.trust.attestation.tpm2 import _commands
from siniantrust.trust.attestation.tpm2._attest import (
    check_signature,
    parse_certified_nv,
    qualified_name,
    split_signed,
)
from siniantrust.trust.attestation.tpm2._constants import SHA256_BYTES, Algorithm, Command, Handle, NvAttributes
from siniantrust.trust.attestation.tpm2._device import Tpm
from siniantrust.trust.attestation.tpm2._public import AK_TEMPLATE, PublicArea
from siniantrust.trust.attestation.tpm2._wire import Session, sized, uint

DEFAULT_INDEX = 0x01805354  # among those that the registry of the TCG leaves to a machine's owner
_COUNTER_BYTES = 8
_MAX_STEPS = 100
_ATTRIBUTES = (
    NvAttributes.COUNTER
    | NvAttributes.AUTH_WRITE
    | NvAttributes.AUTH_READ
    | NvAttributes.OWNER_WRITE
    | NvAttributes.OWNER_READ
    | NvAttributes.NO_DA
)


@runtime_checkable
class RollbackCounter(Protocol):
    """The newest version that was ever admitted."""

    @property
    def protects_against_host(self) -> bool:
        """Whether the machine's owner cannot set it back."""

    def value(self) -> int:
        """Return the newest version."""

    def advance(self, version: int) -> None:
        """Count up to ``version``, which is newer than any before."""


def admit_version(counter: RollbackCounter, version: int, name: str = "bundle") -> None:
    """Admit a version that is the newest or newer, and remember it; ``name`` is what has versions, for errors.

    Raises:
        TrustError: if a newer one was admitted before.
    """
    newest = counter.value()
    if version < newest:
        raise TrustError(
            f"{name}: expected version {newest} or newer, found {version}; it was rolled back, deploy the newest one"
        )
    if version > newest:
        counter.advance(version)


class TpmCounter:
    """A counter in a TPM's NV memory, read as a statement that the TPM signs: a host in between cannot make it up.

    A host can delete the index, since it owns the TPM; a counter that is defined again starts above any that the TPM
    ever had, so that this refuses all bundles rather than admitting an old one.

    Args:
        tpm: the TPM.
        ak: its attestation key, from the enrolment and not from the host.
        base: what ``define`` returned; kept by the Relying Party, since a host that changes it can roll back.
        index: where the counter is.
    """

    def __init__(self, tpm: Tpm, *, ak: PublicArea, base: int, index: int = DEFAULT_INDEX) -> None:
        self._tpm = tpm
        self._ak = ak
        self._base = base
        self._index = index

    @property
    def protects_against_host(self) -> bool:
        """True: as far as the TPM itself is trusted; an emulated one is its host's."""
        return True

    @staticmethod
    def define(tpm: Tpm, *, version: int, index: int = DEFAULT_INDEX) -> int:
        """Define a counter that stands at ``version``, and return its base.

        Raises:
            TpmError: if something is defined there already.
        """
        public = _nv_public(index, _ATTRIBUTES)
        tpm.call(Command.NV_DEFINE_SPACE, [Handle.OWNER], sized(b"") + sized(public), sessions=_commands.PASSWORD)
        tpm.call(Command.NV_INCREMENT, [index, index], sessions=_commands.PASSWORD)
        return int.from_bytes(_commands.nv_read(tpm, index, _COUNTER_BYTES), "big") - version

    def value(self) -> int:
        """Return the newest version, as the TPM certifies it.

        Raises:
            AttestationError: if the statement is not the attestation key's, not fresh, or not about this counter.
        """
        nonce = os.urandom(SHA256_BYTES)
        parameters = sized(nonce) + uint(2, Algorithm.NULL) + uint(2, _COUNTER_BYTES) + uint(2, 0)
        with _commands.primary(self._tpm, Handle.ENDORSEMENT, AK_TEMPLATE) as (ak, _):
            _, raw = self._tpm.call(
                Command.NV_CERTIFY, [ak, self._index, self._index], parameters, sessions=[Session(), Session()]
            )
        statement, signature = split_signed(raw)
        check_signature(self._ak, statement, signature)
        certified = parse_certified_nv(statement)
        found = (certified.statement.signer, certified.statement.extra_data, certified.index_name)
        expected = (qualified_name(self._ak), nonce, _nv_name(self._index))
        if not hmac.compare_digest(b"".join(found), b"".join(expected)):
            raise TrustError(f"TPM counter {self._index:#x}: expected a fresh statement about it, found another")
        return int.from_bytes(certified.contents, "big") - self._base

    def advance(self, version: int) -> None:
        """Count up to ``version``, one step after the other: NV memory wears out.

        Raises:
            TrustError: if that takes too many steps.
        """
        steps = version - self.value()
        if steps > _MAX_STEPS:
            raise TrustError(
                f"TPM counter {self._index:#x}: expected a version at most {_MAX_STEPS} ahead, found {steps}; "
                "number bundles one by one"
            )
        for _ in range(steps):
            self._tpm.call(Command.NV_INCREMENT, [self._index, self._index], sessions=_commands.PASSWORD)


def _nv_public(index: int, attributes: NvAttributes) -> bytes:
    policy = sized(b"")
    return uint(4, index) + uint(2, Algorithm.SHA256) + uint(4, attributes) + policy + uint(2, _COUNTER_BYTES)


def _nv_name(index: int) -> bytes:
    """Return the name of the counter once it counted: it tells a counter from any other index."""
    return uint(2, Algorithm.SHA256) + hashlib.sha256(_nv_public(index, _ATTRIBUTES | NvAttributes.WRITTEN)).digest()


class FileCounter:
    """A counter in a file: against mistakes only. Whoever owns the machine can set it back."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def protects_against_host(self) -> bool:
        """False."""
        return False

    def value(self) -> int:
        """Return the newest version; 0 if there is no file yet.

        Raises:
            TrustError: if the file holds something else than a number.
        """
        try:
            text = self._path.read_text(encoding="ascii", errors="replace").removesuffix("\n")
        except FileNotFoundError:
            return 0
        if not text.isdecimal():
            raise TrustError(f"{self._path}: expected the number of a version, found {text[:40]!r}; write it again")
        return int(text)

    def advance(self, version: int) -> None:
        """Write down ``version``."""
        write_atomic(self._path, f"{version}\n".encode(), mode=0o600)
