"""Evidence of this machine's TPM 2.0 about this package: its code is measured into a register, once for each boot.

A register cannot be set back while the machine runs, so that what was measured is kept in a file. Whoever changes the
file makes evidence that no Verifier accepts, and gains nothing.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from siniantrust._files import write_atomic
from siniantrust.trust.attestation.attesters.simulated import package_measurement
from siniantrust.trust.attestation.tpm2 import (
    DEFAULT_DEVICE,
    DEFAULT_PCR,
    Event,
    EventLog,
    Tpm,
    Tpm2Attester,
    _commands,
    parse_event_log,
)

EVENT = "package"


def open_tpm2(where: str = DEFAULT_DEVICE) -> Tpm2Attester:
    """Return the attester of a TPM, which has measured this package.

    Its evidence is affirmed once the TPM is enrolled: the record is added as the endorsement ``enrolment``.

    Args:
        where: a device file, or ``swtpm:HOST:PORT`` or ``swtpm:PATH`` for an emulator.

    Raises:
        AttestationError: if the TPM cannot be reached, or somebody else measured into the register.
    """
    tpm = Tpm(where)
    try:
        path = _log_path(where)
        kept = parse_event_log(path.read_bytes()) if path.exists() else EventLog()
        register = _commands.pcr_read(tpm, [DEFAULT_PCR])[DEFAULT_PCR]
        attester = Tpm2Attester(tpm, log=_measured(kept, register))
        event = Event(EVENT, bytes.fromhex(package_measurement()))
        if event not in attester.log.events:
            # Written first: an event that the register lacks is left out the next time, one too many is not known.
            write_atomic(path, EventLog((*attester.log.events, event)).encode(), mode=0o600)
            attester.measure(event)
    except BaseException:
        tpm.close()
        raise
    return attester


def _measured(kept: EventLog, register: bytes) -> EventLog:
    """Return what of a log is in the register: after a reset nothing, after a crash all but the last event."""
    for count in range(len(kept.events), -1, -1):
        log = EventLog(kept.events[:count])
        if log.value() == register:
            return log
    return kept  # the attester says what is wrong with it


def _log_path(where: str) -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(base) / "siniantrust" / f"tpm2-{hashlib.sha256(where.encode()).hexdigest()[:16]}.json"
