"""NVIDIA GPUs: the signed measurements of a confidential GPU (Hopper and later), checked with ``cryptography``.

Revocation (OCSP) and NVIDIA's own reference measurements (RIM) need NVIDIA's services, which are not asked: what rests
on them is said to be unchecked and is not affirmed. So such a result is never affirmed as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation._certificates import check_chain, load_pem_chain, trust_root
from siniantrust.trust.attestation._compare import Comparison, check_binding
from siniantrust.trust.attestation._result import AttestationResult, Tier, TrustClaim
from siniantrust.trust.attestation._roles import EvidenceBundle, ReferenceValues
from siniantrust.trust.attestation.verifiers._spdm import NONCE_BYTES, SpdmReport, parse_report

CHAIN = "chain"
# SHA-256 of the public key of "NVIDIA Device Identity CA", as NVIDIA's own verifier carries it (nv-local-gpu-verifier
# 2.7.3, verifier/certs/verifier_device_root.pem).
NVIDIA_ROOT = "a90c4eb5acfd3e3d03a25db6a26b84f720ad0503196c627c21ddd48dd85b06a4"
_WHAT = "nvidia-gpu report"
_DICE_TCB_INFO = x509.ObjectIdentifier("2.23.133.5.4.1")
# A firmware's digest in that extension: SEQUENCE { OBJECT IDENTIFIER sha384, OCTET STRING of 48 bytes }.
_FIRMWARE_ID_BYTES = 48
_FIRMWARE_ID_START = bytes.fromhex("303d06096086480165030402020430")
_REQUIRED = frozenset({TrustClaim.INSTANCE_IDENTITY, TrustClaim.EXECUTABLES, TrustClaim.HARDWARE})
_UNCHECKED = (
    "revocation of the GPU's certificates: NVIDIA's OCSP service is not asked",
    "NVIDIA's reference measurements (RIM): only the reference values given here are compared",
    "whether confidential computing is switched on: the GPU's driver says so, not this report",
)


@dataclass(frozen=True, slots=True)
class NvidiaGpuVerifier:
    """Verifier of NVIDIA GPU reports; ``docs/attestation.md`` lists what is checked against what."""

    kind: str = "nvidia-gpu"

    def appraise(
        self, evidence: EvidenceBundle, *, binding: bytes, reference: ReferenceValues, now: datetime
    ) -> AttestationResult:
        """Appraise a report whose certificates are the endorsement ``chain`` (PEM); see ``Verifier.appraise``.

        A GPU signs a nonce of 32 bytes: the first half of ``binding``.
        """
        if evidence.endorsements.keys() != {CHAIN}:
            raise AttestationError(f"{_WHAT}: expected exactly one endorsement, {CHAIN!r}")
        report = parse_report(evidence.body)
        chain = load_pem_chain(evidence.endorsements[CHAIN], f"{_WHAT}, its chain")
        check_chain(chain, now, f"{_WHAT}, its chain")
        provenance = trust_root(chain[-1], {NVIDIA_ROOT}, reference, _WHAT)
        report.check_signature(chain[0])
        _check_firmware(chain[0], report)
        check_binding(_WHAT, report.nonce, binding[:NONCE_BYTES])
        claims = {
            "driver-version": report.driver_version,
            "vbios-version": report.vbios_version,
            "firmware-id": report.firmware_id.hex(),
            **{f"measurement-{index}": digest.hex() for index, digest in report.measurements.items()},
        }
        comparison = Comparison(self.kind, claims, reference)
        measured = tuple(f"measurement-{index}" for index, digest in report.measurements.items() if any(digest))
        return AttestationResult(
            kind=self.kind,
            provenance=provenance,
            vector={
                TrustClaim.INSTANCE_IDENTITY: Tier.NONE,
                TrustClaim.CONFIGURATION: comparison.tier(("driver-version", "vbios-version")),
                TrustClaim.EXECUTABLES: comparison.tier(measured) if measured else Tier.NONE,
                TrustClaim.HARDWARE: Tier.NONE,
            },
            required=_REQUIRED,
            claims=claims,
            appraised_at=now,
            unchecked=_UNCHECKED,
        )


def _check_firmware(leaf: x509.Certificate, report: SpdmReport) -> None:
    """Refuse a report that names another firmware than the one that its key was certified for."""
    try:
        tcb_info = leaf.extensions.get_extension_for_oid(_DICE_TCB_INFO).value.public_bytes()
    except x509.ExtensionNotFound:
        raise AttestationError(f"{_WHAT}: its certificate does not say for which firmware it is") from None
    digest = report.firmware_id
    if len(digest) != _FIRMWARE_ID_BYTES or _FIRMWARE_ID_START + digest not in tcb_info:
        raise AttestationError(f"{_WHAT}: it names another firmware than its certificate")


VERIFIER = NvidiaGpuVerifier()
