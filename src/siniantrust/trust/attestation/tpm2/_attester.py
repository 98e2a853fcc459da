"""The Attester: measures into a register of its TPM and has the TPM sign what came of it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager

from siniantrust.errors import AttestationError
from siniantrust.trust._sealing import Sealing
from siniantrust.trust.attestation._roles import EvidenceBundle
from siniantrust.trust.attestation.tpm2 import _commands
from siniantrust.trust.attestation.tpm2._codes import TpmError
from siniantrust.trust.attestation.tpm2._constants import Handle
from siniantrust.trust.attestation.tpm2._credential import AkChallenge
from siniantrust.trust.attestation.tpm2._device import Tpm
from siniantrust.trust.attestation.tpm2._event_log import Event, EventLog
from siniantrust.trust.attestation.tpm2._identity import Identity
from siniantrust.trust.attestation.tpm2._pcr import BOOT_PCRS, DEFAULT_PCR, check_pcrs
from siniantrust.trust.attestation.tpm2._platform import TpmSealing
from siniantrust.trust.attestation.tpm2._public import AK_TEMPLATE, KeyKind, PublicArea, ek_template

KIND = "tpm2"
EVENT_LOG = "event-log"
ENROLMENT = "enrolment"
PCR_VALUE = "pcr-"
# Where makers of TPMs put certificates of the standard endorsement keys (TCG EK Credential Profile 2.5).
_CERTIFICATE_INDEX = {KeyKind.ECC_P256: 0x01C0000A, KeyKind.RSA_2048: 0x01C00002}
_LONG_FORM = b"\x30\x82"
_LONG_HEAD_BYTES = 4


def quoted_data(binding: bytes) -> bytes:
    """Return what a quote carries for a binding: TPMs take less than its 64 bytes, so its SHA-256."""
    return hashlib.sha256(binding).digest()


class Tpm2Attester:
    """Evidence of a TPM 2.0: measurements in one of its registers, and a quote over them.

    Args:
        tpm: the TPM of this machine.
        pcr: the register to measure into, 0 to 15; nobody else may extend it.
        more_pcrs: registers to quote along; a Verifier needs those of the boot.
        log: what was measured into ``pcr`` already since the machine was reset.
        intermediates: certificates in DER between the endorsement key's and an anchor, in that order.
        enrolment: the record that the Relying Party made when it enrolled this TPM.

    Raises:
        AttestationError: if the register holds something else than ``log`` says.
    """

    def __init__(
        self,
        tpm: Tpm,
        *,
        pcr: int = DEFAULT_PCR,
        more_pcrs: Collection[int] = BOOT_PCRS,
        log: EventLog = EventLog(),  # noqa: B008 - it is immutable
        intermediates: Sequence[bytes] = (),
        enrolment: bytes | None = None,
    ) -> None:
        check_pcrs([pcr, *more_pcrs])
        self._tpm = tpm
        self._pcr = pcr
        self._more_pcrs = frozenset(more_pcrs) - {pcr}
        self._log = log
        self._intermediates = tuple(intermediates)
        self._lock = threading.Lock()
        self._identity: Identity | None = None
        self.enrolment = enrolment
        self._ek_kind, self._certificate = find_certificate(tpm)
        if _commands.pcr_read(tpm, [pcr])[pcr] != log.value():
            raise AttestationError(
                f"TPM {tpm.where}: PCR {pcr} holds something else than the event log says; give the log of what was "
                "measured since the machine was reset, or choose a register that nobody else extends"
            )

    @property
    def kind(self) -> str:
        """``tpm2``."""
        return KIND

    @property
    def log(self) -> EventLog:
        """What was measured so far; keep it if another Attester is to go on before the machine is reset."""
        return self._log

    def measure(self, event: Event) -> None:
        """Extend the register by a measurement; nothing takes it back until the machine is reset."""
        with self._lock:
            _commands.pcr_extend(self._tpm, self._pcr, event.digest)
            self._log = EventLog((*self._log.events, event))

    def identity(self) -> Identity:
        """Return the attestation key and the endorsement key, for enrolment."""
        with self._lock:
            return self._known_identity()

    def activate(self, challenge: AkChallenge) -> bytes:
        """Return what an enrolment's challenge holds.

        Raises:
            TpmError: if it is not for the keys of this TPM.
        """
        with self._lock, self._ak() as (ak, _), self._ek() as (ek, _):
            return _commands.activate_credential(self._tpm, ak=ak, ek=ek, blob=challenge.blob, secret=challenge.secret)

    def evidence(self, binding: bytes) -> EvidenceBundle:
        """Return a quote over the registers that carries ``binding``.

        Raises:
            AttestationError: if the TPM gives none.
        """
        with self._lock:
            identity = self._known_identity()
            values = _commands.pcr_read(self._tpm, self._more_pcrs)
            with self._ak() as (ak, _):
                body = _commands.quote(self._tpm, ak, quoted_data(binding), {self._pcr, *self._more_pcrs})
            log = self._log
        endorsements = identity.endorsements() | {EVENT_LOG: log.encode()}
        endorsements |= {f"{PCR_VALUE}{pcr}": value for pcr, value in values.items()}
        if self.enrolment is not None:
            endorsements[ENROLMENT] = self.enrolment
        return EvidenceBundle(kind=KIND, body=body, endorsements=endorsements)

    def sealing(self) -> Sealing:
        """Return sealing to what was measured so far, and nothing more; see ``SealingPlatform``."""
        return TpmSealing(self._tpm, {self._pcr: self._log.value()})

    def _ak(self) -> AbstractContextManager[tuple[int, PublicArea]]:
        return _commands.primary(self._tpm, Handle.ENDORSEMENT, AK_TEMPLATE)

    def _ek(self) -> AbstractContextManager[tuple[int, PublicArea]]:
        return _commands.primary(self._tpm, Handle.ENDORSEMENT, ek_template(self._ek_kind))

    def _known_identity(self) -> Identity:
        """Return the identity, which is made once: an RSA key takes a TPM seconds, and it is the same each time."""
        if self._identity is None:
            with self._ak() as (_, ak), self._ek() as (_, ek):
                self._identity = Identity(
                    ak=ak, ek=ek, certificate=self._certificate, intermediates=self._intermediates
                )
        return self._identity


def find_certificate(tpm: Tpm) -> tuple[KeyKind, bytes | None]:
    """Return the endorsement key's algorithm and certificate: the first kind that has one, or P-256 without."""
    for kind, index in _CERTIFICATE_INDEX.items():
        public = _commands.nv_public(tpm, index)
        if public is not None:
            return kind, _trimmed(_commands.nv_read(tpm, index, _commands.nv_size(public)))
    return KeyKind.ECC_P256, None


def _trimmed(stored: bytes) -> bytes:
    """Return the certificate without what pads its NV index."""
    size_bytes = _LONG_HEAD_BYTES + int.from_bytes(stored[2:_LONG_HEAD_BYTES], "big")
    if not stored.startswith(_LONG_FORM) or size_bytes > len(stored):
        raise TpmError("TPM endorsement certificate: expected DER in its NV index, found something else")
    return stored[:size_bytes]
