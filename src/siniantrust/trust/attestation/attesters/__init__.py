"""Attesters by name: each makes evidence about the place that it runs in."""

from siniantrust.trust.attestation.attesters._endorsed import EndorsedAttester
from siniantrust.trust.attestation.attesters._registry import ATTESTERS, open_attester

__all__ = ["ATTESTERS", "EndorsedAttester", "open_attester"]
