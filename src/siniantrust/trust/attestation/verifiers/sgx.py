"""Intel SGX: an enclave's quote (ECDSA, DCAP), checked by ``dcap-qvl``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation._compare import check_binding
from siniantrust.trust.attestation._result import AttestationResult
from siniantrust.trust.attestation._roles import EvidenceBundle, ReferenceValues
from siniantrust.trust.attestation.verifiers._intel import authenticate, conclude

_FORM = "SgxEnclave"


@dataclass(frozen=True, slots=True)
class SgxVerifier:
    """Verifier of SGX quotes; ``docs/attestation.md`` lists what is checked against what."""

    kind: str = "sgx"

    def appraise(
        self, evidence: EvidenceBundle, *, binding: bytes, reference: ReferenceValues, now: datetime
    ) -> AttestationResult:
        """Appraise a quote whose collateral is the endorsement ``collateral``; see ``Verifier.appraise``."""
        quote = authenticate(evidence, reference=reference, now=now)
        if quote.form != _FORM:
            raise AttestationError(f"sgx quote: expected an enclave's report, found {quote.form}")
        report = quote.report
        check_binding("sgx quote", bytes.fromhex(report["report_data"]), binding)
        claims = {
            **quote.platform,
            "mrenclave": report["mr_enclave"],
            "mrsigner": report["mr_signer"],
            "isv-prod-id": str(report["isv_prod_id"]),
            "isv-svn": str(report["isv_svn"]),
            "attributes": report["attributes"],
            "misc-select": str(report["misc_select"]),
        }
        return conclude(
            self.kind,
            quote,
            claims,
            ("mrenclave",),
            ("mrsigner", "isv-prod-id", "isv-svn"),
            reference=reference,
            now=now,
        )


VERIFIER = SgxVerifier()
