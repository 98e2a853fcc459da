"""The attester ``tpm2`` by its name: what it measures, and how it goes on after a restart, a reset or a crash."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tpm_world import ANY_CLOCK, BOOT, ENROLLER, key_bytes

from siniantrust.errors import AttestationError, TrustError
from siniantrust.trust import Provenance
from siniantrust.trust.attestation import ReferenceValues, bind
from siniantrust.trust.attestation._rely import rely_on
from siniantrust.trust.attestation.attesters import EndorsedAttester, open_attester
from siniantrust.trust.attestation.attesters.simulated import package_measurement
from siniantrust.trust.attestation.tpm2 import (
    DEFAULT_PCR,
    Event,
    Swtpm,
    Tpm2Attester,
    accepted_events,
    begin_enrolment,
    seal,
)

_PACKAGE = Event("package", bytes.fromhex(package_measurement()))


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the event log in a folder of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


@contextmanager
def _opened(emulator: Swtpm) -> Iterator[Tpm2Attester]:
    """Open the attester as the command line does; an emulator takes one connection at a time."""
    attester = open_attester(f"tpm2:{emulator.where}")
    assert isinstance(attester, Tpm2Attester)
    try:
        yield attester
    finally:
        attester._tpm.close()


def test_the_package_is_measured_once_a_boot(emulator: Swtpm) -> None:
    """Opening it again finds what was measured; after a reset it is measured anew."""
    for _ in range(2):
        with _opened(emulator) as attester:
            assert attester.log.events == (_PACKAGE,)
    with _opened(emulator) as attester:
        emulator.reset(attester._tpm)
    with _opened(emulator) as attester:
        assert attester.log.events == (_PACKAGE,)


def test_a_crash_before_the_measurement_is_mended(emulator: Swtpm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that tells of one event more than the register holds goes on without it."""
    with monkeypatch.context() as patch:
        patch.setattr(Tpm2Attester, "measure", lambda _attester, _event: None)
        with _opened(emulator) as attester:
            assert attester.log.events == ()
    with _opened(emulator) as attester:
        assert attester.log.events == (_PACKAGE,)


def test_a_register_that_others_extend_is_refused(emulator: Swtpm) -> None:
    """What was measured without a log cannot be vouched for."""
    with _opened(emulator) as attester:
        attester.measure(Event("foreign", bytes(32)))
    with pytest.raises(AttestationError, match="holds something else than the event log says"), _opened(emulator):
        pass


def test_its_evidence_is_affirmed_once_enrolled(emulator: Swtpm) -> None:
    """With the enrolment's record as an endorsement, the emulator's evidence passes, as ``emulated`` and no better."""
    with _opened(emulator) as attester:
        ek = attester.identity().ek.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        anchors = {"emulated:swtpm": ek, "enrolment:us": key_bytes(ENROLLER)}
        now = datetime.now(UTC)
        pending = begin_enrolment(attester.identity(), anchors=anchors, now=now)
        record = pending.complete(attester.activate(pending.challenge), signing_key=ENROLLER, now=now)
        reference = ReferenceValues(
            kind="tpm2", accepted=accepted_events([_PACKAGE]) | BOOT, at_least=ANY_CLOCK, anchors=anchors
        )
        binding = bind(os.urandom(32), b"key")
        for endorsements, accept, refused in (
            ({"enrolment": record}, Provenance.EMULATED, None),
            ({}, Provenance.EMULATED, "is not affirmed"),
            ({"enrolment": record}, Provenance.HARDWARE, "is emulated, the policy accepts: hardware"),
        ):
            evidence = EndorsedAttester(attester, endorsements).evidence(binding)
            decision = {"name": "test", "binding": binding, "reference": reference, "accept": (accept,)}
            if refused is None:
                assert rely_on(evidence, **decision).provenance is Provenance.EMULATED  # type: ignore[arg-type]
            else:
                with pytest.raises(AttestationError, match=refused):
                    rely_on(evidence, **decision)  # type: ignore[arg-type]


def test_what_a_tpm_holds_may_be_no_key(emulator: Swtpm) -> None:
    """Something else that was sealed to the same registers is not taken for the key of sealed data."""
    with _opened(emulator) as attester:
        key, kept = attester.sealing().new_key()
        assert attester.sealing().key_again(kept) == key
        other = seal(attester._tpm, b"x", {DEFAULT_PCR: attester.log.value()})
        with pytest.raises(TrustError, match="expected a key of 32 bytes from the TPM, found 1"):
            attester.sealing().key_again(other)


@pytest.mark.parametrize("name", ["tpm2:/dev/nothing", "tpm2:swtpm:/nothing"])
def test_a_tpm_that_is_not_there_is_named(name: str) -> None:
    """The error names the place."""
    with pytest.raises(AttestationError, match=r"nothing: it cannot be opened"):
        open_attester(name)


def test_only_a_tpm_has_a_place() -> None:
    """Another attester with a place behind its name is unknown."""
    with pytest.raises(AttestationError, match="'gramine:/dev/null' is unknown"):
        open_attester("gramine:/dev/null")
