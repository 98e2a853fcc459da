"""Attestation, key release and sealing by a TPM, over an emulator."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from results_file import Bar, Outcome
from timing import in_turns, median_ms

from siniantrust.trust.attestation import ReferenceValues, bind
from siniantrust.trust.attestation.tpm2 import (
    DEFAULT_PCR,
    Event,
    Swtpm,
    Tpm,
    Tpm2Attester,
    Tpm2Verifier,
    accepted_events,
    begin_enrolment,
    seal,
    unseal,
)

_BAR_S = 1.0
_KEY_BYTES = 32
_BOOT = {f"pcr-{pcr}": frozenset({"00" * 32}) for pcr in (0, 2, 4, 7)}
_EVENTS = (Event("enclave", bytes(32)), Event("bundle", bytes(range(32))))


class _Deployment:
    """An Attester over an emulated TPM with measurements, and what a Relying Party knows of it."""

    def __init__(self, tpm: Tpm) -> None:
        self._tpm = tpm
        self._attester = Tpm2Attester(tpm)
        for event in _EVENTS:
            self._attester.measure(event)
        self._enroller = Ed25519PrivateKey.generate()
        ek = self._attester.identity().ek.public_key()
        anchors = {
            "emulated:swtpm": ek.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            "enrolment:benchmark": self._enroller.public_key().public_bytes(
                Encoding.DER, PublicFormat.SubjectPublicKeyInfo
            ),
        }
        self._reference = ReferenceValues(
            kind="tpm2",
            accepted=accepted_events(_EVENTS) | _BOOT,
            at_least={"clock-ms": 0, "reset-count": 0, "restart-count": 0},
            anchors=anchors,
        )
        self.enrol()
        self._sealed = seal(tpm, bytes(_KEY_BYTES), {DEFAULT_PCR: self._attester.log.value()})

    def enrol(self) -> None:
        """Make a challenge in software and have the TPM answer it."""
        now = datetime.now(UTC)
        pending = begin_enrolment(self._attester.identity(), anchors=self._reference.anchors, now=now)
        answer = self._attester.activate(pending.challenge)
        self._attester.enrolment = pending.complete(answer, signing_key=self._enroller, now=now)

    def attest(self) -> None:
        """Quote for a fresh nonce, and appraise the quote."""
        binding = bind(os.urandom(32), b"a public key")
        evidence = self._attester.evidence(binding)
        result = Tpm2Verifier().appraise(evidence, binding=binding, reference=self._reference, now=datetime.now(UTC))
        if not result.affirmed:
            raise RuntimeError(f"not affirmed: {result}")

    def seal(self) -> None:
        """Seal a key to the registers."""
        seal(self._tpm, os.urandom(_KEY_BYTES), {DEFAULT_PCR: self._attester.log.value()})

    def unseal(self) -> None:
        """Have the TPM release a key that is sealed to the registers."""
        unseal(self._tpm, self._sealed)

    def attest_and_release(self) -> None:
        """Both, as a start of an enclave needs them."""
        self.attest()
        self.unseal()


def run(*, quick: bool) -> Outcome:
    """Time each step over one emulator, in turns."""
    with Swtpm() as emulator, Tpm(emulator.where) as tpm:
        deployment = _Deployment(tpm)
        steps = {
            "enrol (once)": deployment.enrol,
            "attest: quote and appraise": deployment.attest,
            "seal": deployment.seal,
            "unseal": deployment.unseal,
            "attest and release a key": deployment.attest_and_release,
        }
        found = in_turns(steps, turns=3 if quick else 50, warm_up=1 if quick else 3)
    released_s = median_ms(found["attest and release a key"]) / 1e3
    return Outcome(
        title="TPM",
        method=(
            "A TPM 2.0 that swtpm emulates on this machine, spoken to over a Unix socket: keys are derived anew for "
            "each step, as on a machine without state. The endorsement key is on P-256 and its own anchor."
        ),
        rows=[{"step": name, "median, ms": median_ms(values)} for name, values in found.items()],
        bars=[Bar("attest and release a key over swtpm, seconds (emulated)", _BAR_S, released_s)],
        remarks=[
            "Provenance: *emulated*. The host of an emulator reads its keys; a TPM in hardware is slower, by its maker."
        ],
    )
