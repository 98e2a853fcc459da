"""Reference values as a table of plain values: in a plan, and in the key broker's store.

Anchors are in it as base64 of their DER, so that nothing is left to other files.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation._roles import ReferenceValues

_FIELDS = {"kind", "accepted", "at_least", "anchors"}


def reference_from_table(table: Mapping[str, Any], *, origin: str) -> ReferenceValues:
    """Check a table; ``origin`` names it in errors.

    Raises:
        AttestationError: if a field is unknown or of another type, or nothing is compared at all.
    """
    start = f"reference values {origin}"
    if unknown := sorted(set(table) - _FIELDS):
        raise AttestationError(f"{start}: {unknown[0]!r} is no field; there are: {', '.join(sorted(_FIELDS))}")
    kind = table.get("kind")
    if not isinstance(kind, str) or not kind:
        raise AttestationError(f"{start}: expected the kind of evidence that they are for, found {kind!r}")
    accepted, at_least, anchors = (_section(table, name, start) for name in ("accepted", "at_least", "anchors"))
    for claim, values in accepted.items():
        if not isinstance(values, list | tuple) or not values or not all(isinstance(each, str) for each in values):
            raise AttestationError(f"{start}: accepted.{claim}: expected a list of texts, at least one")
    for claim, value in at_least.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise AttestationError(f"{start}: at_least.{claim}: expected a whole number, found {value!r}")
    if not accepted:
        raise AttestationError(f"{start}: nothing is accepted; list at least one measurement in [accepted]")
    return ReferenceValues(
        kind=kind,
        accepted={claim: frozenset(values) for claim, values in accepted.items()},
        at_least=dict(at_least),
        anchors={name: _der(text, f"{start}: anchors.{name}") for name, text in anchors.items()},
    )


def reference_to_table(reference: ReferenceValues) -> dict[str, Any]:
    """Return the table that ``reference_from_table`` reads."""
    return {
        "kind": reference.kind,
        "accepted": {claim: sorted(values) for claim, values in reference.accepted.items()},
        "at_least": dict(reference.at_least),
        "anchors": {name: base64.b64encode(data).decode() for name, data in reference.anchors.items()},
    }


def _section(table: Mapping[str, Any], name: str, start: str) -> dict[str, Any]:
    section = table.get(name, {})
    if not isinstance(section, dict):
        raise AttestationError(f"{start}: {name}: expected a table")
    return section


def _der(text: object, place: str) -> bytes:
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise AttestationError(f"{place}: expected the base64 of a DER certificate or key")
