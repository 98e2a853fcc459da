"""Each check on a GPU's report, and on simulated evidence, that is in order but for one thing."""

from __future__ import annotations

import json
from dataclasses import replace

import attestation_snp as snp
import pytest
from attestation_pki import NOW, Request, issue
from attestation_snp import make_gpu_chain, make_gpu_report

from siniantrust.errors import AttestationError
from siniantrust.trust import Evidence, Provenance
from siniantrust.trust.attestation import (
    AttestationResult,
    EvidenceBundle,
    ReferenceValues,
    Tier,
    TrustClaim,
    verifier,
)


def _gpu(body: bytes, chain: bytes, reference: ReferenceValues | None = None) -> AttestationResult:
    root = make_gpu_chain()[-1]
    evidence = EvidenceBundle(kind="nvidia-gpu", body=body, endorsements={"chain": chain})
    values = reference or ReferenceValues(kind="nvidia-gpu", anchors={"test-root": root.der})
    return verifier("nvidia-gpu").appraise(evidence, binding=snp.BINDING, reference=values, now=NOW)


def test_a_gpu_report_in_order_is_read_and_labelled() -> None:
    """A report under a root of our own is authentic, emulated, and not affirmed."""
    chain = make_gpu_chain()
    result = _gpu(make_gpu_report(chain[0]), b"".join(each.pem for each in chain))
    assert result.provenance is Provenance.EMULATED
    assert result.tier is Tier.NONE
    assert result.claims["measurement-3"] == (b"\2" * 48).hex()


def test_gpu_measurements_are_affirmed_only_all_together() -> None:
    """Every measurement that is not blank needs a reference value."""
    chain = make_gpu_chain()
    pem, body = b"".join(each.pem for each in chain), make_gpu_report(chain[0])
    accepted = {f"measurement-{index + 1}": frozenset({(bytes([index]) * 48).hex()}) for index in (1, 2)}
    anchors = {"test-root": chain[-1].der}
    all_of_them = ReferenceValues(kind="nvidia-gpu", accepted=accepted, anchors=anchors)
    assert _gpu(body, pem, all_of_them).vector[TrustClaim.EXECUTABLES] is Tier.AFFIRMING
    del accepted["measurement-3"]
    fewer = ReferenceValues(kind="nvidia-gpu", accepted=accepted, anchors=anchors)
    assert _gpu(body, pem, fewer).vector[TrustClaim.EXECUTABLES] is Tier.NONE
    blank = make_gpu_report(chain[0], blocks=1)
    nothing = ReferenceValues(kind="nvidia-gpu", anchors=anchors)
    assert _gpu(blank, pem, nothing).vector[TrustClaim.EXECUTABLES] is Tier.NONE


def test_a_gpu_chain_that_nobody_trusts_is_refused() -> None:
    """Without an anchor only NVIDIA's root counts."""
    chain = make_gpu_chain()
    with pytest.raises(AttestationError, match="neither the vendor's"):
        _gpu(
            make_gpu_report(chain[0]),
            b"".join(each.pem for each in chain),
            ReferenceValues(kind="nvidia-gpu"),
        )


def test_gpu_firmware_that_the_key_was_not_certified_for_is_refused() -> None:
    """The report's firmware must be the one in the certificate; a report or a certificate without one is refused."""
    chain = make_gpu_chain()
    pem = b"".join(each.pem for each in chain)
    for firmware_id in (b"g" * 48, b"", b"f" * 47):
        with pytest.raises(AttestationError, match="another firmware"):
            _gpu(make_gpu_report(chain[0], firmware_id=firmware_id), pem)
    plain = issue(Request(name="GPU"), snp.p384_key("gpu"), chain[-1])
    with pytest.raises(AttestationError, match="does not say for which firmware"):
        _gpu(make_gpu_report(plain), plain.pem + chain[-1].pem)


def test_a_gpu_report_without_its_chain_is_refused() -> None:
    """The chain comes along with the report, and nothing else does."""
    chain = make_gpu_chain()
    body = make_gpu_report(chain[0])
    for endorsements in ({}, {"chain": chain[0].pem, "more": b""}):
        evidence = EvidenceBundle(kind="nvidia-gpu", body=body, endorsements=endorsements)
        with pytest.raises(AttestationError, match="exactly one endorsement"):
            verifier("nvidia-gpu").appraise(
                evidence, binding=snp.BINDING, reference=ReferenceValues(kind="nvidia-gpu"), now=NOW
            )


_SIMULATED = Evidence(
    provider="process",
    provenance=Provenance.SIMULATED,
    nonce=b"n" * 32,
    enclave_public_key=b"e" * 32,
    report_data=b"r" * 32,
    measurement="ab" * 32,
    protections={"seccomp": "active"},
)
_ACCEPTED = {"provider": frozenset({"process"}), "measurement": frozenset({"ab" * 32})}


def _simulated(evidence: Evidence, binding: bytes = b"r" * 32 + bytes(32), **reference: object) -> AttestationResult:
    values = ReferenceValues(kind="simulated", **{"accepted": _ACCEPTED, **reference})  # type: ignore[arg-type]
    bundle = EvidenceBundle(kind="simulated", body=evidence.to_json())
    return verifier("simulated").appraise(bundle, binding=binding, reference=values, now=NOW)


def test_simulated_evidence_is_never_more_than_simulated() -> None:
    """It may be consistent; its result says simulated, and that nothing signs it."""
    result = _simulated(_SIMULATED)
    assert result.affirmed
    assert result.provenance is Provenance.SIMULATED
    assert "nothing signs it" in result.unchecked[0]
    for claimed in (Provenance.HARDWARE, Provenance.EMULATED):
        with pytest.raises(AttestationError, match="with nothing to show for it"):
            _simulated(replace(_SIMULATED, provenance=claimed))


def test_simulated_evidence_is_bound_and_compared_like_any_other() -> None:
    """Another binding and another measurement are refused; without reference values nothing is affirmed."""
    with pytest.raises(AttestationError, match="not bound"):
        _simulated(_SIMULATED, binding=b"s" * 64)
    with pytest.raises(AttestationError, match="measurement: expected"):
        _simulated(replace(_SIMULATED, measurement="cd" * 32))
    assert not _simulated(_SIMULATED, accepted={}).affirmed
    with pytest.raises(AttestationError, match="no anchors"):
        _simulated(_SIMULATED, anchors={"root": b""})


def test_simulated_evidence_in_other_words_is_refused() -> None:
    """The JSON has one form."""
    body = json.dumps(json.loads(_SIMULATED.to_json()), indent=1).encode()
    with pytest.raises(AttestationError, match="the JSON that an enclave writes"):
        verifier("simulated").appraise(
            EvidenceBundle(kind="simulated", body=body),
            binding=b"r" * 32 + bytes(32),
            reference=ReferenceValues(kind="simulated"),
            now=NOW,
        )
