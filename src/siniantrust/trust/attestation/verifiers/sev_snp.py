"""AMD SEV-SNP: a confidential virtual machine's attestation report, checked with ``cryptography``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation._compare import Comparison, check_binding
from siniantrust.trust.attestation._result import AttestationResult, Tier, TrustClaim
from siniantrust.trust.attestation._roles import EvidenceBundle, ReferenceValues
from siniantrust.trust.attestation.verifiers._snp_keys import check_keys
from siniantrust.trust.attestation.verifiers._snp_report import SnpReport, parse_report

_DEBUG = 1 << 19
_MIGRATION_AGENT = 1 << 18
_REQUIRED = frozenset({TrustClaim.CONFIGURATION, TrustClaim.EXECUTABLES, TrustClaim.HARDWARE})


@dataclass(frozen=True, slots=True)
class SevSnpVerifier:
    """Verifier of SEV-SNP reports; ``docs/attestation.md`` lists what is checked against what."""

    kind: str = "sev-snp"

    def appraise(
        self, evidence: EvidenceBundle, *, binding: bytes, reference: ReferenceValues, now: datetime
    ) -> AttestationResult:
        """Appraise a report whose certificates are its endorsements (see ``check_keys``); see ``Verifier.appraise``."""
        report = parse_report(evidence.body)
        provenance, revocation_checked = check_keys(evidence, report, reference=reference, now=now)
        check_binding("sev-snp report", report.report_data, binding)
        if report.policy & _DEBUG:
            raise AttestationError(
                "sev-snp report: the machine's policy allows debugging, where its host reads all of it"
            )
        claims = _claims(report)
        comparison = Comparison(self.kind, claims, reference)
        _check_defaults(report, comparison)
        tcb = tuple(f"tcb-{component}" for component in report.tcb["reported"])
        hardware = comparison.tier(tcb) if revocation_checked else Tier.NONE
        return AttestationResult(
            kind=self.kind,
            provenance=provenance,
            vector={
                TrustClaim.INSTANCE_IDENTITY: comparison.tier(("chip-id",)),
                TrustClaim.CONFIGURATION: Tier.AFFIRMING,
                TrustClaim.EXECUTABLES: comparison.tier(("measurement",)),
                TrustClaim.HARDWARE: hardware,
                TrustClaim.RUNTIME_OPAQUE: hardware,
            },
            required=_REQUIRED,
            claims=claims,
            appraised_at=now,
            unchecked=() if revocation_checked else ("revocation of AMD's keys: no endorsement 'crl' came along",),
        )


def _check_defaults(report: SnpReport, comparison: Comparison) -> None:
    """Refuse what weakens a machine, unless the reference values speak of it and so accept it."""
    if report.vmpl != 0 and not comparison.matched("vmpl"):
        raise AttestationError(f"sev-snp report: expected privilege level (vmpl) 0, found {report.vmpl}")
    if report.policy & _MIGRATION_AGENT and not comparison.matched("policy"):
        raise AttestationError(
            "sev-snp report: the machine's policy lets a migration agent move it to another host; "
            "give that policy as a reference value to accept it"
        )


def _claims(report: SnpReport) -> dict[str, str]:
    return {
        **{name: digest.hex() for name, digest in report.digests.items()},
        **{f"tcb-{component}": str(version) for component, version in report.tcb["reported"].items()},
        "version": str(report.version),
        "guest-svn": str(report.guest_svn),
        "policy": f"{report.policy:016x}",
        "vmpl": str(report.vmpl),
        "signing-key": report.signing_key.name.lower(),
        "chip-id": report.chip_id.hex(),
    }


VERIFIER = SevSnpVerifier()
