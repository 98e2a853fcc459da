"""Intel TDX: a confidential virtual machine's quote (ECDSA, DCAP), checked by ``dcap-qvl``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation._compare import check_binding
from siniantrust.trust.attestation._result import AttestationResult
from siniantrust.trust.attestation._roles import EvidenceBundle, ReferenceValues
from siniantrust.trust.attestation.verifiers._intel import authenticate, conclude

_FORM = "TD1"  # TD10, TD15 and their extensions
_MEASUREMENTS = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
_FIELDS = {
    "mrtd": "mr_td",
    "rtmr0": "rt_mr0",
    "rtmr1": "rt_mr1",
    "rtmr2": "rt_mr2",
    "rtmr3": "rt_mr3",
    "mrseam": "mr_seam",
    "mrsignerseam": "mr_signer_seam",
    "mrconfigid": "mr_config_id",
    "mrowner": "mr_owner",
    "mrownerconfig": "mr_owner_config",
    "seam-attributes": "seam_attributes",
    "td-attributes": "td_attributes",
    "xfam": "xfam",
    "tee-tcb-svn": "tee_tcb_svn",
}


@dataclass(frozen=True, slots=True)
class TdxVerifier:
    """Verifier of TDX quotes; ``docs/attestation.md`` lists what is checked against what."""

    kind: str = "tdx"

    def appraise(
        self, evidence: EvidenceBundle, *, binding: bytes, reference: ReferenceValues, now: datetime
    ) -> AttestationResult:
        """Appraise a quote whose collateral is the endorsement ``collateral``; see ``Verifier.appraise``."""
        quote = authenticate(evidence, reference=reference, now=now)
        if not quote.form.startswith(_FORM):
            raise AttestationError(f"tdx quote: expected a virtual machine's report, found {quote.form}")
        # A report of TDX 1.5 holds one of TDX 1.0.
        report = {**quote.report.get("base", {}), **quote.report}
        check_binding("tdx quote", bytes.fromhex(report["report_data"]), binding)
        claims = {**quote.platform, **{name: report[field] for name, field in _FIELDS.items()}}
        return conclude(self.kind, quote, claims, _MEASUREMENTS, reference=reference, now=now)


VERIFIER = TdxVerifier()
