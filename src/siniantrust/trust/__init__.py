"""ODLA.trust: labels and clearances, enclaves, evidence, sealing and the encrypted channel."""

from siniantrust.trust._labels import Label, Provenance, ThreatModel, may_see

__all__ = ["Label", "Provenance", "ThreatModel", "may_see"]
