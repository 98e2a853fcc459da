"""The process enclave's evidence: nothing signs it, it shows that the pieces fit, and is never above ``simulated``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from siniantrust.errors import AttestationError
from siniantrust.trust._evidence import parse_evidence
from siniantrust.trust._labels import Provenance
from siniantrust.trust.attestation._compare import Comparison, check_binding
from siniantrust.trust.attestation._result import AttestationResult, TrustClaim
from siniantrust.trust.attestation._roles import BINDING_BYTES, EvidenceBundle, ReferenceValues

_REQUIRED = frozenset({TrustClaim.EXECUTABLES})


@dataclass(frozen=True, slots=True)
class SimulatedVerifier:
    """Verifier of simulated evidence. Whoever acts on its results has accepted ``simulated`` in so many words."""

    kind: str = "simulated"

    def appraise(
        self, evidence: EvidenceBundle, *, binding: bytes, reference: ReferenceValues, now: datetime
    ) -> AttestationResult:
        """Appraise the JSON of ``siniantrust.trust.Evidence``; see ``Verifier.appraise``.

        Report data that are shorter than ``binding`` are filled up with zeros, as hardware does it.
        """
        if evidence.endorsements or reference.anchors:
            raise AttestationError(
                "simulated evidence: expected no endorsements and no anchors, since nothing is signed"
            )
        found = parse_evidence(evidence.body)
        if evidence.body != found.to_json():
            raise AttestationError(
                "simulated evidence: expected the JSON that an enclave writes, found other words for it"
            )
        if found.provenance is not Provenance.SIMULATED:
            raise AttestationError(
                f"simulated evidence: it claims to be {found.provenance}, with nothing to show for it"
            )
        check_binding("simulated evidence", found.report_data.ljust(BINDING_BYTES, b"\0"), binding)
        claims = {
            "provider": found.provider,
            "measurement": found.measurement,
            "statement": found.statement,
            **{f"protection-{name}": state for name, state in found.protections.items()},
        }
        comparison = Comparison(self.kind, claims, reference)
        return AttestationResult(
            kind=self.kind,
            provenance=Provenance.SIMULATED,
            vector={TrustClaim.EXECUTABLES: comparison.tier(("provider", "measurement"))},
            required=_REQUIRED,
            claims=claims,
            appraised_at=now,
            unchecked=("who made this evidence: nothing signs it, and a host that wants to lie can write all of it",),
        )


VERIFIER = SimulatedVerifier()
