"""Labels of values and clearances of devices: the hard constraint on every placement."""

from __future__ import annotations

from enum import StrEnum


class Label(StrEnum):
    """How private a value is, most private first."""

    SECRET = "secret"  # noqa: S105 - a label, no password
    PADDED = "padded"
    OBSCURED = "obscured"
    PUBLIC = "public"


class Provenance(StrEnum):
    """Where a trust claim comes from. Simulated is never called secure."""

    HARDWARE = "hardware"
    EMULATED = "emulated"
    SIMULATED = "simulated"


class ThreatModel(StrEnum):
    """Which of the design's threat models a plan is made for."""

    INPUT_PRIVACY = "input-privacy"
    OUTPUT_PRIVACY = "output-privacy"


_RANK = {Label.PUBLIC: 0, Label.PADDED: 1, Label.OBSCURED: 2, Label.SECRET: 3}


def may_see(clearance: Label, label: Label) -> bool:
    """Return whether a device cleared for ``clearance`` may hold a value labelled ``label``.

    A padded value says nothing without its pad, so it needs less clearance than an obscured one.
    """
    return _RANK[clearance] >= _RANK[label]
