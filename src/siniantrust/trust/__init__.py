"""ODLA.trust: labels and clearances, enclaves, evidence, sealing and the encrypted channel."""

from siniantrust.trust._checks import host_checks
from siniantrust.trust._crossing import measure_crossing
from siniantrust.trust._evidence import AttestationResult, Evidence, ReferenceValues, appraise
from siniantrust.trust._labels import Label, Provenance, ThreatModel, may_see
from siniantrust.trust._offers import Offer, provider_offers
from siniantrust.trust._protections import PROTECTIONS, Protection
from siniantrust.trust._registry import launch, runs_prelude, set_up, unsupported_nodes
from siniantrust.trust._seal import SealedPart, seal_file, seal_part, seal_program, unseal_file, unseal_part
from siniantrust.trust._sealed_data import SealedData, SealOrigin
from siniantrust.trust._switch import measure_switch
from siniantrust.trust._types import (
    BrokeredEnclave,
    Check,
    CrossingCost,
    Enclave,
    EnclaveInfo,
    EnclaveLimits,
    EnclaveSpec,
)

__all__ = [
    "PROTECTIONS",
    "AttestationResult",
    "BrokeredEnclave",
    "Check",
    "CrossingCost",
    "Enclave",
    "EnclaveInfo",
    "EnclaveLimits",
    "EnclaveSpec",
    "Evidence",
    "Label",
    "Offer",
    "Protection",
    "Provenance",
    "ReferenceValues",
    "SealOrigin",
    "SealedData",
    "SealedPart",
    "ThreatModel",
    "appraise",
    "host_checks",
    "launch",
    "may_see",
    "measure_crossing",
    "measure_switch",
    "provider_offers",
    "runs_prelude",
    "seal_file",
    "seal_part",
    "seal_program",
    "set_up",
    "unseal_file",
    "unseal_part",
    "unsupported_nodes",
]
