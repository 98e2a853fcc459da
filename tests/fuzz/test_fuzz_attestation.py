"""Every parser of evidence, collateral, tokens and reference files: no crash, no hang, no acceptance."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import attestation_intel as intel
import attestation_snp as snp
import hypothesis
import pytest
from attestation_pki import NOW
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import spoil_bytes, spoil_tree

from siniantrust.errors import AttestationError
from siniantrust.trust import Evidence, Provenance
from siniantrust.trust.attestation import (
    AttestationResult,
    EvidenceBundle,
    ReferenceValues,
    Tier,
    TrustClaim,
    evidence_from_json,
    evidence_to_json,
    load_reference,
    sign_result,
    verifier,
    verify_result,
)

MAX_CPU_S = 1.0
BINDING = bytes(range(64))
VALUES: tuple[object, ...] = (None, True, 0, -1, 2**70, 0.5, "", "\0", "ab" * 32, "\ud800", [], [[]], {}, {"": {}})


@dataclass(frozen=True, slots=True)
class Target:
    """What is fuzzed: ``accept`` takes bytes, and returns or raises AttestationError.

    Attributes:
        accept: the reader.
        genuine: what it accepts.
        form: what two inputs must have in common to count as the same one.
        signed: whether nothing but the genuine input may be accepted.
    """

    accept: Callable[[bytes], object]
    genuine: bytes
    form: Callable[[bytes], object] = bytes
    signed: bool = True


def _appraising(evidence: EvidenceBundle, reference: ReferenceValues, name: str | None = None) -> Target:
    """Return a target that appraises the evidence with another body, or with another endorsement ``name``."""

    def accept(raw: bytes) -> AttestationResult:
        if name is None:
            changed = replace(evidence, body=raw)
        else:
            changed = replace(evidence, endorsements={**evidence.endorsements, name: raw})
        return verifier(evidence.kind).appraise(changed, binding=BINDING, reference=reference, now=NOW)

    return Target(accept, evidence.body if name is None else evidence.endorsements[name])


def _intel(tee: str, name: str | None = None) -> Target:
    made = intel.make_intel()
    body = made.quote() if tee == "SGX" else made.td_quote(tdx_1_5=True)
    reference = made.reference() if tee == "SGX" else made.reference(kind="tdx", accepted={})
    target = _appraising(made.evidence(body, tee=tee), reference, name)
    # Zeros may follow a quote, and between the names of JSON there may be blanks.
    return replace(target, form=json.loads if name else lambda raw: raw.rstrip(b"\0"))


def _sev_snp(name: str | None = None) -> Target:
    chain = snp.make_chain()
    return _appraising(chain.evidence(snp.make_report()), chain.reference(), name)


def _nvidia_gpu(name: str | None = None) -> Target:
    chain = snp.make_gpu_chain()
    pem = b"".join(each.pem for each in chain)
    evidence = EvidenceBundle(kind="nvidia-gpu", body=snp.make_gpu_report(chain[0]), endorsements={"chain": pem})
    reference = ReferenceValues(kind="nvidia-gpu", anchors={"test-root": chain[-1].der})
    return replace(_appraising(evidence, reference, name), form=lambda raw: raw.rstrip(b"\n"))


def _simulated() -> Target:
    evidence = Evidence(
        provider="process",
        provenance=Provenance.SIMULATED,
        nonce=b"n" * 32,
        enclave_public_key=b"e" * 32,
        report_data=BINDING,
        measurement="ab" * 32,
    )
    reference = ReferenceValues(kind="simulated", accepted={"measurement": frozenset({"ab" * 32})})
    # Nothing signs it: another evidence of the same measurement is as good as this one.
    return replace(_appraising(EvidenceBundle(kind="simulated", body=evidence.to_json()), reference), signed=False)


def _token() -> Target:
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    result = AttestationResult(
        kind="sgx",
        provenance=Provenance.HARDWARE,
        vector={TrustClaim.HARDWARE: Tier.AFFIRMING},
        required=frozenset({TrustClaim.HARDWARE}),
        claims={},
        appraised_at=NOW,
    )
    token = sign_result(result, private, binding=BINDING, now=NOW).encode()
    return Target(lambda raw: verify_result(raw.decode("latin-1"), public, binding=BINDING, now=NOW), token)


def _bundle() -> Target:
    evidence = EvidenceBundle(kind="sgx", body=b"body" * 9, endorsements={"a": b"x", "b": b""})
    return Target(evidence_from_json, evidence_to_json(evidence), signed=False)


TARGETS: dict[str, Callable[[], Target]] = {
    "sgx quote": lambda: _intel("SGX"),
    "tdx quote": lambda: _intel("TDX"),
    "intel collateral": lambda: _intel("SGX", "collateral"),
    "sev-snp report": _sev_snp,
    "sev-snp vcek": lambda: _sev_snp("vcek"),
    "sev-snp crl": lambda: _sev_snp("crl"),
    "nvidia-gpu report": _nvidia_gpu,
    "nvidia-gpu chain": lambda: _nvidia_gpu("chain"),
    "simulated": _simulated,
    "token": _token,
    "bundle": _bundle,
}


def _attempt(target: Target, raw: bytes) -> None:
    """Check one input: accepted only if it is the genuine one, and within the time."""
    start_s = time.thread_time()
    try:
        target.accept(raw)
    except AttestationError as fault:
        accepted = False
        assert "\n" not in str(fault)  # noqa: PT017 - the error is one of two allowed outcomes
    else:
        accepted = True
    # A collection of garbage may fall into any one reading: what really takes long does so again.
    if time.thread_time() - start_s >= MAX_CPU_S:
        start_s = time.thread_time()
        with contextlib.suppress(AttestationError):
            target.accept(raw)
        assert time.thread_time() - start_s < MAX_CPU_S
    if target.signed and accepted:
        assert target.form(raw) == target.form(target.genuine)


def _spoilt(genuine: bytes, source: random.Random) -> bytes:
    """Return bytes from anywhere, the genuine ones with changes, or their JSON with another value in it."""
    junk = source.randbytes(source.randrange(24))
    way = source.random()
    if way < 0.1:
        return junk
    if way < 0.3 and genuine.startswith(b"{"):
        return json.dumps(spoil_tree(json.loads(genuine), source, source.choice(VALUES))).encode()
    return spoil_bytes(genuine, source, junk)


def _fuzz(name: str, inputs: int) -> None:
    """Try that many spoilt inputs."""
    target = TARGETS[name]()
    target.accept(target.genuine)
    per_run = min(inputs, 10_000)
    for run in range(inputs // per_run):
        # Everything is drawn from one number: drawing each of them from hypothesis would take most of the time.
        @hypothesis.seed(run)
        @settings(max_examples=per_run, deadline=None, database=None)
        @given(seed=st.integers(0, 2**64))
        def attempt(seed: int) -> None:
            _attempt(target, _spoilt(target.genuine, random.Random(seed)))

        attempt()


@pytest.mark.parametrize("name", TARGETS)
def test_no_spoilt_input_is_accepted(name: str) -> None:
    """Whatever arrives, the reader refuses it with its one kind of error, in one line and in time: 2,000 inputs."""
    _fuzz(name, 2_000)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", TARGETS)
def test_no_spoilt_input_is_accepted_in_100_000(name: str) -> None:
    """The same for 100,000 inputs."""
    _fuzz(name, 100_000)


REFERENCE = b"""
kind = "sgx"
accept = ["hardware"]
accepted = { mrenclave = ["ab"] }
at_least = { isv-svn = 8 }
anchors = { }
"""


def _fuzz_references(folder: Path, inputs: int) -> None:
    path = folder / "reference.toml"

    @hypothesis.seed(0)
    @settings(max_examples=inputs, deadline=None, database=None)
    @given(seed=st.integers(0, 2**64))
    def attempt(seed: int) -> None:
        path.write_bytes(_spoilt(REFERENCE, random.Random(seed)))
        try:
            load_reference(path)
        except AttestationError as fault:
            assert str(path) in str(fault)  # noqa: PT017 - the error is one of two allowed outcomes
            assert "\n" not in str(fault)  # noqa: PT017 - as above

    attempt()


def test_a_spoilt_reference_file_is_a_reference_or_an_error(tmp_path: Path) -> None:
    """A reference file in which bytes were changed is read, or refused with its name in one line: 2,000 inputs."""
    _fuzz_references(tmp_path, 2_000)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_spoilt_reference_file_is_a_reference_or_an_error_in_100_000(tmp_path: Path) -> None:
    """The same for 100,000 inputs."""
    _fuzz_references(tmp_path, 100_000)
