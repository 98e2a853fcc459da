from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import attestation_intel as intel
import pytest
from attestation_pki import NOW
from command_line import Command, Outcome
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from siniantrust.trust import Evidence, Provenance
from siniantrust.trust.attestation import EvidenceBundle, bind, evidence_to_json, verify_result

Refused = Callable[..., Outcome]
AT = ("--at", NOW.isoformat())
BINDING = ("--binding", intel.BINDING.hex())


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    """Return a file with an SGX quote in order, beside the root that signed it."""
    made = intel.make_intel()
    (tmp_path / "root.der").write_bytes(made.root.der)
    path = tmp_path / "evidence.json"
    path.write_bytes(evidence_to_json(made.evidence(made.quote())))
    return path


def _reference(evidence: Path, text: str = "", accept: str = '"hardware", "emulated"') -> Path:
    path = evidence.parent / "reference.toml"
    path.write_text(f'kind = "sgx"\naccept = [{accept}]\nanchors = {{ intel-root = "root.der" }}\n{text}')
    return path


def _accepting(evidence: Path) -> Path:
    return _reference(evidence, f'accepted = {{ mrenclave = ["{intel.MRENCLAVE.hex()}"] }}')


def test_evidence_that_is_affirmed_exits_with_0(sinian: Command, evidence: Path) -> None:
    """Claims, trust vector and provenance are shown."""
    outcome = sinian("verify", evidence, "--reference", _accepting(evidence), *BINDING, *AT)
    assert outcome.code == 0, outcome
    assert intel.MRENCLAVE.hex() in outcome.out
    assert "executables" in outcome.out
    assert "provenance: emulated; status: affirming" in outcome.out


def test_evidence_that_is_not_affirmed_exits_with_2_and_says_why(sinian: Command, evidence: Path) -> None:
    """What is shown is the same, and one line on standard error says what is not affirmed."""
    outcome = sinian("verify", evidence, "--reference", _reference(evidence), *BINDING, *AT)
    assert outcome.code == 2
    assert "status: none" in outcome.out
    assert outcome.err.splitlines() == [
        f"sinian: error: evidence {evidence}: not affirmed: executables is not affirmed"
    ]


def test_a_provenance_that_the_reference_does_not_accept_exits_with_2(sinian: Command, evidence: Path) -> None:
    """Emulated evidence does not pass for hardware, which is all that is accepted if nothing else is said."""
    reference = _accepting(evidence)
    reference.write_text(reference.read_text().replace('accept = ["hardware", "emulated"]\n', ""))
    outcome = sinian("verify", evidence, "--reference", reference, *BINDING, *AT)
    assert outcome.code == 2
    assert "the evidence is emulated, the reference accepts: hardware" in outcome.err


def test_json_says_the_same(sinian: Command, evidence: Path) -> None:
    """Programs read claims, vector, what is unchecked and why it was refused."""
    outcome = sinian("verify", evidence, "--reference", _reference(evidence), *BINDING, *AT, "--json")
    shown = json.loads(outcome.out)
    assert (outcome.code, shown["affirmed"], shown["provenance"]) == (2, False, "emulated")
    assert shown["vector"]["executables"] == "none"
    assert shown["refusal"] == "executables is not affirmed"
    assert shown["claims"]["mrsigner"] == intel.MRSIGNER.hex()


def test_a_result_can_be_signed_for_others(sinian: Command, evidence: Path, tmp_path: Path) -> None:
    """``--ear-key`` writes an EAR that the key's public half opens, for this binding."""
    key = ed25519.Ed25519PrivateKey.generate()
    private = tmp_path / "key.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    out = tmp_path / "result.jwt"
    options = ("--reference", _accepting(evidence), *BINDING, *AT)
    assert sinian("verify", evidence, *options, "--ear-key", private, "-o", out).code == 0
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    from datetime import UTC, datetime

    result = verify_result(out.read_text(), public, binding=intel.BINDING, now=datetime.now(UTC))
    assert result.affirmed
    assert result.appraised_at == NOW


def test_a_nonce_with_its_runtime_data_is_a_binding(sinian: Command, tmp_path: Path) -> None:
    """``--nonce`` and ``--runtime-data`` give the 64 bytes that an Attester of ours puts into its evidence."""
    nonce, key = b"n" * 32, b"public key"
    made = Evidence(
        provider="process",
        provenance=Provenance.SIMULATED,
        nonce=nonce,
        enclave_public_key=b"e" * 32,
        report_data=bind(nonce, key),
        measurement="ab" * 32,
    )
    evidence, runtime_data, reference = tmp_path / "e.json", tmp_path / "key.der", tmp_path / "r.toml"
    evidence.write_bytes(evidence_to_json(EvidenceBundle(kind="simulated", body=made.to_json())))
    runtime_data.write_bytes(key)
    reference.write_text(
        'kind = "simulated"\naccept = ["simulated"]\n'
        f'accepted = {{ provider = ["process"], measurement = ["{"ab" * 32}"] }}'
    )
    options = ("--reference", reference, "--runtime-data", runtime_data)
    assert sinian("verify", evidence, *options, "--nonce", nonce.hex()).code == 0
    outcome = sinian("verify", evidence, *options, "--nonce", (b"m" * 32).hex())
    assert (outcome.code, "not bound" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ((), "--binding"),
        (("--nonce", "00" * 32), "--runtime-data"),
        ((*BINDING, "--nonce", "00" * 32), "--binding"),
        (("--binding", "xyz"), "--binding xyz"),
        (("--binding", "00" * 65), "at most 64 bytes"),
        (("--binding", "00" * 64), "not bound"),
        ((*BINDING, "--at", "yesterday"), "--at yesterday"),
        ((*BINDING, "--at", "2025-06-20T00:00:00"), "--at 2025-06-20T00:00:00"),
        ((*BINDING, "--at", "2045-06-20T00:00:00Z"), "sgx quote"),
        ((*BINDING, "--ear-key", "key.pem"), "--out"),
        ((*BINDING, "--out", "result.jwt"), "--ear-key"),
    ],
    ids=range(11),
)
def test_what_cannot_be_appraised_is_refused(
    refused: Refused, evidence: Path, options: tuple[str, ...], names: str
) -> None:
    """Without a binding, with another one, out of time or with half an option, nothing is shown and nothing written."""
    reference = _accepting(evidence)
    at = () if "--at" in options else AT
    refused("verify", evidence, "--reference", reference, *options, *at, names=names)


def test_files_that_are_none_are_refused(refused: Refused, evidence: Path, tmp_path: Path) -> None:
    """A missing file and one of another form are named."""
    reference = _accepting(evidence)
    refused("verify", tmp_path / "none.json", "--reference", reference, *BINDING, names="none.json")
    refused("verify", reference, "--reference", reference, *BINDING, names=f"evidence {reference}")
    refused("verify", evidence, "--reference", tmp_path / "none.toml", *BINDING, names="none.toml")
    refused("verify", evidence, "--reference", evidence, *BINDING, names=evidence)
