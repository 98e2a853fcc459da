"""The limits of a service, as it states them to its client."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from math import isfinite

from siniantrust.errors import ChannelError, TrustError
from siniantrust.trust._channel import Payload, UnsendableError
from siniantrust.trust._codec import MAX_MESSAGE_BYTES
from siniantrust.trust._sealing import MAX_SEALED_BYTES, sealing_of
from siniantrust.trust._types import EnclaveLimits
from siniantrust.trust.attestation import Attester
from siniantrust.trust.process._common import MAX_PARTS
from siniantrust.trust.tls import Limits

_MAX_JSON_BYTES = 4 << 10
_MAY_BE_NONE = ("memory_bytes", "message_bytes", "requests_per_s", "idle_s", "lifetime_s")


def limits_to_json(granted: Limits, attester: Attester) -> bytes:
    """Return what a service enforces on each client. Its memory is the platform's, which nothing here limits."""
    try:
        sealing_of(attester)
        sealed_bytes = MAX_SEALED_BYTES
    except TrustError:
        sealed_bytes = 0
    found = EnclaveLimits(
        memory_bytes=None,
        message_bytes=min(granted.frame_bytes, MAX_MESSAGE_BYTES),
        tensors_bytes=granted.payload_bytes,
        sealed_bytes=sealed_bytes,
        parts=MAX_PARTS,
        sessions=granted.sessions,
        **{name: _finite(getattr(granted, name)) for name in ("requests_per_s", "idle_s", "lifetime_s")},
    )
    return json.dumps(asdict(found)).encode()


def _finite(number: float) -> float | None:
    return number if isfinite(number) else None


def limits_from_json(raw: bytes) -> EnclaveLimits:
    """Read what a service states.

    Raises:
        ChannelError: if it is not what ``limits_to_json`` writes.
    """
    try:
        if len(raw) > _MAX_JSON_BYTES:
            raise ValueError(f"{len(raw)} bytes")  # noqa: TRY301 - every fault takes the same exit below
        stated = json.loads(raw)
        if set(stated) != {field.name for field in fields(EnclaveLimits)}:
            raise ValueError("its fields")  # noqa: TRY301 - as above
        for name, number in stated.items():
            is_number = type(number) in {int, float} and number >= 0
            if not is_number and not (number is None and name in _MAY_BE_NONE):
                raise ValueError(name)  # noqa: TRY301 - as above
        return EnclaveLimits(**stated)
    except (ValueError, TypeError, RecursionError) as fault:
        raise ChannelError(f"limits: expected those that a service states, found a fault in them ({fault})") from None


def heed(limits: EnclaveLimits, plain: bytes, payloads: list[Payload]) -> None:
    """Refuse here what would end the session there.

    Raises:
        UnsendableError: naming the limit.
    """
    size_bytes = sum(len(data) for _, data in payloads)
    for what, found, most in (
        ("a message", len(plain), limits.message_bytes),
        ("tensors", size_bytes, limits.tensors_bytes),
    ):
        if most is not None and found > most:
            raise UnsendableError(f"{found} bytes of {what} are over the limit of {most}, which the service states")
