"""The Verifier of simulated evidence: it checks that the pieces fit; there is no signature that it could check."""

from __future__ import annotations

import hmac
import json
from datetime import datetime

from siniantrust.errors import AttestationError
from siniantrust.trust._labels import Provenance
from siniantrust.trust.attestation._result import AttestationResult, Tier, TrustClaim
from siniantrust.trust.attestation._roles import EvidenceBundle, ReferenceValues

_FIELDS = {"binding", "measurement", "statement"}


class SimulatedVerifier:
    """Compares the stated measurement with the accepted ones. Its results have the provenance ``simulated``, always."""

    kind = "simulated"

    def appraise(
        self, evidence: EvidenceBundle, *, binding: bytes, reference: ReferenceValues, now: datetime
    ) -> AttestationResult:
        """Appraise evidence; see ``Verifier``."""
        try:
            fields = json.loads(evidence.body)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict) or fields.keys() != _FIELDS or not all(map(_is_text, fields.values())):
            raise AttestationError(f"simulated evidence: expected an object of {', '.join(sorted(_FIELDS))} as texts")
        if not hmac.compare_digest(fields["binding"].encode(), binding.hex().encode()):
            raise AttestationError(
                "simulated evidence: it is not bound to this session's nonce and key; it may be a replay, or somebody "
                "stands between"
            )
        accepted = reference.accepted.get("measurement", frozenset())
        if fields["measurement"] not in accepted:
            expected = " or ".join(sorted(value[:16] + "…" for value in accepted)) or "nothing"
            raise AttestationError(
                f"simulated evidence: measurement: expected {expected}, found {fields['measurement'][:16]}…"
            )
        return AttestationResult(
            kind=self.kind,
            provenance=Provenance.SIMULATED,
            vector={TrustClaim.EXECUTABLES: Tier.AFFIRMING},
            required=frozenset({TrustClaim.EXECUTABLES}),
            claims={"measurement": fields["measurement"]},
            appraised_at=now,
            unchecked=("its origin, because no hardware signed it",),
        )


def _is_text(value: object) -> bool:
    return isinstance(value, str)
