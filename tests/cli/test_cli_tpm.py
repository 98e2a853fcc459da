"""The attester ``tpm2`` on the command line, over an emulated TPM."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from command_line import START, Command
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from siniantrust.trust import EnclaveSpec, Provenance, launch
from siniantrust.trust.attestation import ReferenceValues, bind, load_evidence
from siniantrust.trust.attestation._rely import rely_on
from siniantrust.trust.attestation.attesters import open_attester
from siniantrust.trust.attestation.tpm2 import Swtpm, Tpm2Attester, accepted_events, begin_enrolment


@dataclass(frozen=True)
class Machine:
    """A machine with a TPM, enrolled: its attester, the file of its enrolment, and what a Relying Party expects."""

    attester: str
    enrolment: Path
    reference: ReferenceValues


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Return a machine whose TPM is emulated."""
    if shutil.which("swtpm") is None:
        pytest.skip("not installed: swtpm (Debian: swtpm)")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    enroller, form = Ed25519PrivateKey.generate(), (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with Swtpm() as emulator:
        name = f"tpm2:{emulator.where}"
        attester = open_attester(name)
        assert isinstance(attester, Tpm2Attester)
        with closing(attester._tpm):  # an emulator takes one connection at a time
            anchors = {
                "emulated:swtpm": attester.identity().ek.public_key().public_bytes(*form),
                "enrolment:us": enroller.public_key().public_bytes(*form),
            }
            now = datetime.now(UTC)
            pending = begin_enrolment(attester.identity(), anchors=anchors, now=now)
            record = pending.complete(attester.activate(pending.challenge), signing_key=enroller, now=now)
        enrolment = tmp_path / "enrolment"
        enrolment.write_bytes(record)
        accepted = accepted_events(attester.log.events) | {f"pcr-{pcr}": frozenset({"00" * 32}) for pcr in (0, 2, 4, 7)}
        at_least = {"clock-ms": 0, "reset-count": 0, "restart-count": 0}
        reference = ReferenceValues(kind="tpm2", accepted=accepted, at_least=at_least, anchors=anchors)
        yield Machine(name, enrolment, reference)


def test_evidence_of_a_tpm(sinian: Command, machine: Machine, tmp_path: Path) -> None:
    """``attest --attester tpm2`` writes evidence that is affirmed with the enrolment, and is ``emulated``."""
    out, nonce = tmp_path / "evidence.json", "ab" * 32
    more = ("--endorsement", f"enrolment={machine.enrolment}", "-o", out)
    found = sinian("attest", "--attester", machine.attester, "--nonce", nonce, *more)
    assert (found.code, found.err) == (0, "")
    result = rely_on(
        load_evidence(out),
        name="test",
        binding=bind(bytes.fromhex(nonce), b""),
        reference=machine.reference,
        accept=(Provenance.EMULATED,),
    )
    assert result.provenance is Provenance.EMULATED


def test_a_service_beside_a_tpm(machine: Machine) -> None:
    """``enclave serve --attester tpm2`` is attested and seals with the TPM, for the service that comes after it too."""
    sealed = None
    for _ in range(2):
        command = [sys.executable, *START, "enclave", "serve", "--attester", machine.attester]
        command += ["--endorsement", f"enrolment={machine.enrolment}", "--listen", "127.0.0.1:0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                address = process.stdout.readline().split()[3]
                spec = EnclaveSpec(
                    provider="service",
                    memory_bytes=256 << 20,
                    accept=(Provenance.EMULATED,),
                    address=address,
                    reference=machine.reference,
                )
                with closing(launch(spec)) as enclave:
                    assert enclave.provenance is Provenance.EMULATED
                    sealed = sealed or enclave.seal(b"data", context=b"test")
                    assert enclave.unseal(sealed, context=b"test") == b"data"
            finally:
                process.terminate()
                process.wait(30)
