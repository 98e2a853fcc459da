"""Attestation Results: a trust vector in the words of AR4SI (draft-ietf-rats-ar4si), as EAR carries it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum

from siniantrust.trust._labels import Provenance


class Tier(IntEnum):
    """How far a claim is trusted; the numbers are those of AR4SI."""

    NONE = 0
    AFFIRMING = 2
    WARNING = 32
    CONTRAINDICATED = 96


class TrustClaim(StrEnum):
    """What a trust vector speaks about; the names are those of AR4SI."""

    INSTANCE_IDENTITY = "instance-identity"
    CONFIGURATION = "configuration"
    EXECUTABLES = "executables"
    FILE_SYSTEM = "file-system"
    HARDWARE = "hardware"
    RUNTIME_OPAQUE = "runtime-opaque"
    STORAGE_OPAQUE = "storage-opaque"
    SOURCED_DATA = "sourced-data"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationResult:
    """A Verifier's conclusion, for the Relying Party.

    Attributes:
        kind: the kind of evidence that was appraised.
        provenance: where its claims come from.
        vector: how far each claim is trusted; a claim that is not listed has tier ``NONE``.
        required: the claims that must be affirmed for the whole to be.
        claims: what the evidence says, by name, after its authenticity was checked.
        unchecked: what could not be checked, in words; whatever rests on it is not affirmed.
        appraised_at: when.
    """

    kind: str
    provenance: Provenance
    vector: Mapping[TrustClaim, Tier]
    required: frozenset[TrustClaim]
    claims: Mapping[str, str]
    appraised_at: datetime
    unchecked: tuple[str, ...] = field(default=())

    @property
    def tier(self) -> Tier:
        """The worst tier of all claims; ``NONE`` where a required claim has none, or nothing is required."""
        worst = max(self.vector.values(), default=Tier.NONE)
        missing = any(self.vector.get(claim, Tier.NONE) is Tier.NONE for claim in self.required)
        if worst <= Tier.AFFIRMING and (missing or not self.required):
            return Tier.NONE
        return worst

    @property
    def affirmed(self) -> bool:
        """Whether everything that is required is affirmed and nothing speaks against it."""
        return self.tier is Tier.AFFIRMING
