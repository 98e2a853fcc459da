"""Real evidence for tests: public sample sets, which lie outside the project; a test without them skips and says so."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation import AttestationResult, EvidenceBundle, ReferenceValues, verifier

_ROOT = Path(__file__).resolve().parents[2]
EVIDENCE = Path(os.environ.get("SINIAN_EVIDENCE", _ROOT.parent / "shared" / "evidence"))
NVIDIA_SAMPLES = Path(os.environ.get("SINIAN_NVIDIA_SAMPLES", _ROOT / ".cache/nvidia-samples/verifier/samples"))


@dataclass(frozen=True, slots=True)
class Sample:
    """Real evidence, what it carries instead of our binding, and a time at which its certificates were valid."""

    evidence: EvidenceBundle
    binding: bytes
    now: datetime


def _read(folder: Path, name: str, how: str) -> bytes:
    path = folder / name
    if not path.exists():
        pytest.skip(f"no sample {path}; {how}")
    return path.read_bytes()


def _evidence(name: str) -> bytes:
    return _read(EVIDENCE, name, "SINIAN_EVIDENCE names the folder that holds the public samples")


def _nvidia(name: str) -> bytes:
    return _read(NVIDIA_SAMPLES, name, "run `make nvidia-samples`")


def sgx() -> Sample:
    """Return an SGX quote with its collateral; its report data are a greeting."""
    endorsements = {"collateral": _evidence("sgx_quote_collateral.json")}
    evidence = EvidenceBundle(kind="sgx", body=_evidence("sgx_quote"), endorsements=endorsements)
    return Sample(evidence, b"Hello, world!".ljust(64, b"\0"), datetime(2025, 6, 20, tzinfo=UTC))


def tdx() -> Sample:
    """Return a TDX quote with its collateral."""
    endorsements = {"collateral": _evidence("tdx_quote_collateral.json")}
    evidence = EvidenceBundle(kind="tdx", body=_evidence("tdx_quote"), endorsements=endorsements)
    return Sample(evidence, evidence.body[568:632], datetime(2025, 6, 20, tzinfo=UTC))


def tdx_outdated() -> Sample:
    """Return a TDX quote of a machine whose TCB matches no level of its collateral."""
    endorsements = {"collateral": _evidence("tdx_quote_outdated_collateral.json")}
    evidence = EvidenceBundle(kind="tdx", body=_evidence("tdx_quote_outdated"), endorsements=endorsements)
    return Sample(evidence, bytes(64), datetime(2026, 2, 20, tzinfo=UTC))


def sev_snp() -> Sample:
    """Return a SEV-SNP report of a Milan machine with its chain; its policy allows debugging."""
    ask, ark = x509.load_pem_x509_certificates(_evidence("snp_milan.testcer"))
    endorsements = {
        "vcek": _evidence("snp_vcek.testcer"),
        "ask": ask.public_bytes(Encoding.DER),
        "ark": ark.public_bytes(Encoding.DER),
    }
    evidence = EvidenceBundle(kind="sev-snp", body=_evidence("snp_attestation.bin"), endorsements=endorsements)
    return Sample(evidence, evidence.body[0x50:0x90], datetime(2025, 6, 20, tzinfo=UTC))


def nvidia_gpu() -> Sample:
    """Return an H100's report with its chain."""
    body = bytes.fromhex(_nvidia("hopperAttestationReport.txt").decode())
    endorsements = {"chain": _nvidia("hopperCertChain.txt")}
    evidence = EvidenceBundle(kind="nvidia-gpu", body=body, endorsements=endorsements)
    return Sample(evidence, body[4:36].ljust(64, b"\0"), datetime(2025, 6, 20, tzinfo=UTC))


SAMPLES: dict[str, Callable[[], Sample]] = {"sgx": sgx, "tdx": tdx, "sev-snp": sev_snp, "nvidia-gpu": nvidia_gpu}


def appraise(sample: Sample, **reference: object) -> AttestationResult:
    """Appraise a sample as of its own time, against reference values."""
    values = ReferenceValues(kind=sample.evidence.kind, **reference)  # type: ignore[arg-type]
    return verifier(sample.evidence.kind).appraise(
        sample.evidence, binding=sample.binding, reference=values, now=sample.now
    )


def authenticate(sample: Sample) -> None:
    """Check all that there is to check without reference values; the SNP sample's debug bit is looked at last."""
    if sample.evidence.kind != "sev-snp":
        appraise(sample)
        return
    with pytest.raises(AttestationError) as caught:
        appraise(sample)
    if "policy allows debugging" not in str(caught.value):
        raise caught.value


def refused(sample: Sample) -> bool:
    """Return whether a sample is not authentic."""
    try:
        authenticate(sample)
    except AttestationError:
        return True
    return False


def flipped(raw: bytes, bit: int) -> bytes:
    """Return bytes with one bit changed."""
    flipped = bytearray(raw)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def with_body(sample: Sample, body: bytes) -> Sample:
    """Return a sample with another body."""
    return replace(sample, evidence=replace(sample.evidence, body=body))


def with_endorsement(sample: Sample, name: str, raw: bytes) -> Sample:
    """Return a sample with another endorsement."""
    return replace(sample, evidence=replace(sample.evidence, endorsements={**sample.evidence.endorsements, name: raw}))


def spread(count: int, total: int) -> Iterator[int]:
    """Yield about ``count`` numbers below ``total``, evenly spread, each at a random place of its stretch."""
    source = random.Random(total)
    for start in range(0, total, max(1, total // count)):
        yield min(total - 1, start + source.randrange(max(1, total // count)))
