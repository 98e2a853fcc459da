"""What was measured, in order: with it a Verifier recomputes the register that a quote vouches for."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation.tpm2._constants import SHA256_BYTES
from siniantrust.trust.attestation.tpm2._pcr import START, extend

_MAX_BYTES = 256 << 10
_MAX_EVENTS = 1024
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Event:
    """One measurement: what it is of (lower-case letters, digits, dots, dashes), and its SHA-256."""

    name: str
    digest: bytes

    def __post_init__(self) -> None:
        """Refuse what could not be written down and read again."""
        if not _NAME.fullmatch(self.name) or len(self.digest) != SHA256_BYTES:
            raise AttestationError(
                f"TPM event log: expected a name of a-z, 0-9, '.' and '-' with a SHA-256 of {SHA256_BYTES} bytes, "
                f"found {self.name[:80]!r} with {len(self.digest)}"
            )


@dataclass(frozen=True, slots=True)
class EventLog:
    """Measurements since the machine was reset, oldest first."""

    events: tuple[Event, ...] = ()

    def value(self) -> bytes:
        """Return the register's value after these events."""
        value = START
        for event in self.events:
            value = extend(value, event.digest)
        return value

    def encode(self) -> bytes:
        """Return the log as JSON."""
        return json.dumps([[event.name, event.digest.hex()] for event in self.events]).encode()


def parse_event_log(raw: bytes) -> EventLog:
    """Read a log, which must be exactly as ``EventLog.encode`` writes it.

    Raises:
        AttestationError: if it is not, or too long.
    """
    try:
        if len(raw) > _MAX_BYTES:
            raise ValueError(f"{len(raw)} bytes")  # noqa: TRY301 - every fault takes the same exit below
        log = EventLog(tuple(Event(name, bytes.fromhex(digest)) for name, digest in json.loads(raw)))
        if len(log.events) > _MAX_EVENTS or log.encode() != raw:
            raise ValueError("not its form")  # noqa: TRY301 - as above
    except (ValueError, TypeError, RecursionError) as fault:
        raise AttestationError(f"TPM event log: expected its JSON form, found a fault in it ({fault})") from None
    return log
