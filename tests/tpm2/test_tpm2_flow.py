from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tpm_world import (
    BINDING,
    BOOT,
    ENROLLER,
    EVENTS,
    NOW,
    PCR,
    Authority,
    World,
    appraise,
    certified_attester,
    enrol,
    make_reference,
    make_world,
    store_certificate,
    with_endorsements,
)

from siniantrust.errors import AttestationError
from siniantrust.trust import EnclaveSpec, Provenance
from siniantrust.trust.attestation import Attester, Tier, TrustClaim, Verifier, bind
from siniantrust.trust.attestation.tpm2 import (
    AkChallenge,
    Event,
    EventLog,
    Swtpm,
    Tpm,
    Tpm2Attester,
    Tpm2Verifier,
    TpmError,
    accepted_events,
    begin_enrolment,
    deployment_events,
    pin_clock,
)
from siniantrust.trust.attestation.tpm2._commands import pcr_extend


def test_an_enrolled_tpm_with_the_measurements_expected_is_affirmed(shared_world: World) -> None:
    """Everything is affirmed, and what the quote says is told as claims."""
    result = shared_world.appraise(shared_world.evidence())
    assert result.affirmed
    assert result.unchecked == ()
    assert result.claims["event:enclave"] == EVENTS[0].digest.hex()
    assert result.claims["anchor"] == "emulated:maker"
    assert int(result.claims["firmware-version"]) > 0


def test_the_roles_are_those_of_the_rfc(shared_world: World) -> None:
    """Attester and Verifier have the protocols' shape."""
    assert isinstance(shared_world.attester, Attester)
    assert isinstance(Tpm2Verifier(), Verifier)
    assert shared_world.attester.kind == Tpm2Verifier().kind == "tpm2"


def test_an_emulator_is_never_called_hardware(shared_world: World) -> None:
    """Provenance is that of the anchor, and swtpm's authority is an emulator's."""
    assert shared_world.appraise(shared_world.evidence()).provenance is Provenance.EMULATED


def test_a_chain_that_ends_in_a_maker_of_hardware_is_hardware(shared_world: World, authority: Authority) -> None:
    """The Relying Party says by an anchor's name what its devices are."""
    anchors = {**shared_world.reference.anchors, "hardware:maker": authority.root}
    del anchors["emulated:maker"]
    reference = dataclasses.replace(shared_world.reference, anchors=anchors)
    assert shared_world.appraise(shared_world.evidence(), reference).provenance is Provenance.HARDWARE


def test_a_tpm_made_by_swtpms_own_tools_is_affirmed(manufactured: tuple[Tpm, Path]) -> None:
    """A real chain, from an RSA endorsement key in NV memory over the issuing authority to its root."""
    tpm, folder = manufactured
    root, issuer = (
        x509.load_pem_x509_certificate((folder / name).read_bytes()).public_bytes(Encoding.DER)
        for name in ("swtpm-localca-rootca-cert.pem", "issuercert.pem")
    )
    attester = Tpm2Attester(tpm, pcr=PCR, intermediates=[issuer])
    pending = begin_enrolment(attester.identity(), anchors={"emulated:swtpm": root}, now=datetime.now(UTC))
    answer = attester.activate(pending.challenge)
    attester.enrolment = pending.complete(answer, signing_key=ENROLLER, now=datetime.now(UTC))
    for event in EVENTS:
        attester.measure(event)
    world = World(attester, make_reference({"emulated:swtpm": root}))
    result = appraise(world.evidence(), world.reference, now=datetime.now(UTC))
    assert result.affirmed
    assert attester.identity().ek.kind == "rsa-2048"


def test_the_issuing_authority_can_be_the_anchor(world: World, authority: Authority) -> None:
    """Where the Relying Party trusts the issuer itself, no certificate is needed between."""
    reference = make_reference({"emulated:issuer": authority.issuer})
    evidence = with_endorsements(world.evidence(), ek_intermediate_0=None)
    assert world.appraise(evidence, reference).claims["anchor"] == "emulated:issuer"


def test_a_tpm_without_a_certificate_can_be_known_by_its_key(tpm: Tpm) -> None:
    """An anchor may be the endorsement key itself, for one TPM."""
    attester = Tpm2Attester(tpm, pcr=PCR)
    key = attester.identity().ek.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    world = make_world(attester, {"emulated:desk": key})
    assert world.appraise(world.evidence()).affirmed
    with pytest.raises(AttestationError, match="expected a certificate or an anchor that is the key itself"):
        world.appraise(world.evidence(), make_reference({}))


def test_an_index_without_a_certificate_is_an_error(tpm: Tpm) -> None:
    """Where a certificate should be and is none, nothing is made up in its place."""
    store_certificate(tpm, b"no certificate")
    with pytest.raises(TpmError, match="expected DER in its NV index"):
        Tpm2Attester(tpm)


def test_too_many_intermediate_certificates_are_an_error(tpm: Tpm, authority: Authority) -> None:
    """A chain has at most four certificates between endorsement key and anchor."""
    attester = Tpm2Attester(tpm, intermediates=[authority.issuer] * 5)
    with pytest.raises(AttestationError, match="at most 4 intermediate certificates, found 5"):
        attester.evidence(BINDING)


def test_a_quote_without_an_enrolment_affirms_nothing(world: World) -> None:
    """A key outside any TPM could have signed it, and the result says that this was not checked."""
    result = world.appraise(with_endorsements(world.evidence(), enrolment=None))
    assert result.tier is Tier.NONE
    assert TrustClaim.INSTANCE_IDENTITY not in result.vector
    assert "no enrolment" in result.unchecked[0]


def test_an_enrolment_that_no_anchor_can_check_affirms_nothing(world: World) -> None:
    """Without the enroller's key among the anchors, the record is as good as none."""
    anchors = {name: raw for name, raw in world.reference.anchors.items() if not name.startswith("enrolment:")}
    result = world.appraise(world.evidence(), dataclasses.replace(world.reference, anchors=anchors))
    assert not result.affirmed
    assert result.unchecked


def test_the_attestation_key_of_another_tpm_cannot_be_enrolled(world: World, authority: Authority) -> None:
    """Neither TPM opens a credential that names the one's attestation key and is for the other's endorsement key."""
    with Swtpm() as other, Tpm(other.where) as connection:
        stranger = Tpm2Attester(connection)
        mixed = dataclasses.replace(world.attester.identity(), ak=stranger.identity().ak)
        pending = begin_enrolment(mixed, anchors={"emulated:maker": authority.root}, now=NOW)
        for attester in (world.attester, stranger):
            with pytest.raises(TpmError, match="ACTIVATE_CREDENTIAL"):
                attester.activate(pending.challenge)


def test_a_guess_does_not_enrol(world: World, authority: Authority) -> None:
    """What the challenge holds must come back; anything else is refused."""
    pending = begin_enrolment(world.attester.identity(), anchors={"emulated:maker": authority.root}, now=NOW)
    for guess in (b"", bytes(32), pending.challenge.blob[:32]):
        with pytest.raises(AttestationError, match="does not live in the TPM"):
            pending.complete(guess, signing_key=ENROLLER, now=NOW)


def test_a_challenge_does_not_tell_its_answer(world: World, authority: Authority) -> None:
    """Neither the challenge's bytes nor its text hold the answer, and a changed challenge is not answered."""
    pending = begin_enrolment(world.attester.identity(), anchors={"emulated:maker": authority.root}, now=NOW)
    assert pending.answer not in pending.challenge.blob + pending.challenge.secret
    assert pending.answer.hex() not in repr(pending)
    blob = bytearray(pending.challenge.blob)
    blob[-1] ^= 1
    with pytest.raises(TpmError, match="integrity"):
        world.attester.activate(AkChallenge(bytes(blob), pending.challenge.secret))


def test_an_older_quote_does_not_pass_for_a_new_challenge(world: World) -> None:
    """A replay is told by the nonce in it."""
    old = world.evidence()
    fresh = bind(b"m" * 32, b"the enclave's public key")
    with pytest.raises(AttestationError, match="replay"):
        appraise(old, world.reference, binding=fresh)


def test_a_quote_for_another_enclave_key_is_refused(world: World) -> None:
    """The nonce and the key that the enclave made are bound together."""
    with pytest.raises(AttestationError, match="expected our binding"):
        world.appraise(world.evidence(bind(b"n" * 32, b"the key of somebody between")))


def test_one_more_extension_is_refused(world: World, tpm: Tpm) -> None:
    """What was measured and is not in the log shows in the register."""
    assert world.appraise(world.evidence()).affirmed
    pcr_extend(tpm, PCR, b"x" * 32)
    with pytest.raises(AttestationError, match="that the log does not tell"):
        world.appraise(world.evidence())


def test_a_measurement_without_a_reference_value_is_refused(world: World) -> None:
    """What runs beside the expected code is told, and refused by default."""
    world.attester.measure(Event("debugger", b"d" * 32))
    with pytest.raises(AttestationError, match="'debugger' was measured and has no reference value"):
        world.appraise(world.evidence())


def test_another_bundle_is_refused(world: World) -> None:
    """A second bundle under the same name counts as well as the first."""
    world.attester.measure(Event("bundle", b"o" * 32))
    with pytest.raises(
        AttestationError, match=f"event:bundle to be one of 1 accepted values, found {(b'o' * 32).hex()}"
    ):
        world.appraise(world.evidence())


def test_what_must_be_measured_and_was_not_is_refused(world: World) -> None:
    """A reference value without its measurement is not passed over."""
    accepted = {**world.reference.accepted, "event:model": frozenset({"00" * 32})}
    with pytest.raises(AttestationError, match="expected a claim 'event:model'"):
        world.appraise(world.evidence(), dataclasses.replace(world.reference, accepted=accepted))


def test_a_reset_is_refused(world: World, emulator: Swtpm, tpm: Tpm) -> None:
    """After a reboot the same code gives the same register, and the reset counter gives it away."""
    reference = pin_clock(world.reference, world.appraise(world.evidence()))
    assert world.appraise(world.evidence(), reference).affirmed
    emulator.reset(tpm)
    rebooted = certified_again(tpm, world)
    assert world.appraise(rebooted.evidence(BINDING)).affirmed
    with pytest.raises(AttestationError, match="the machine was reset"):
        world.appraise(rebooted.evidence(BINDING), reference)


def certified_again(tpm: Tpm, world: World) -> Tpm2Attester:
    """Return the Attester of the same TPM after a reset, which measured the same again."""
    intermediates = world.attester.identity().intermediates
    attester = Tpm2Attester(tpm, pcr=PCR, intermediates=intermediates, enrolment=world.attester.enrolment)
    for event in EVENTS:
        attester.measure(event)
    return attester


def test_an_older_clock_is_refused(world: World) -> None:
    """Evidence from before the last that was appraised is refused by its clock."""
    early = world.evidence()
    later = world.appraise(world.evidence())
    lowest = int(world.appraise(early).claims["clock-ms"]) + 1
    reference = dataclasses.replace(pin_clock(world.reference, later), at_least={"clock-ms": lowest})
    with pytest.raises(AttestationError, match="clock-ms to be at least"):
        world.appraise(early, reference)


def test_clocks_without_a_reference_value_are_not_affirmed(world: World) -> None:
    """What nobody compared is listed, and the configuration is not affirmed."""
    result = world.appraise(world.evidence(), dataclasses.replace(world.reference, at_least={}))
    assert TrustClaim.CONFIGURATION not in result.vector
    assert result.unchecked == ("clock-ms, reset-count, restart-count (no reference value)",)
    assert not result.affirmed


def test_a_boot_that_nobody_compared_is_not_affirmed(world: World) -> None:
    """Whoever booted something else could measure what it liked: the boot must have reference values."""
    result = world.appraise(world.evidence(), dataclasses.replace(world.reference, accepted=accepted_events(EVENTS)))
    assert TrustClaim.CONFIGURATION not in result.vector
    assert result.unchecked == ("pcr-0, pcr-2, pcr-4, pcr-7 (no reference value)",)
    assert not result.affirmed


def test_a_boot_that_was_not_quoted_is_refused(world: World, tpm: Tpm) -> None:
    """A quote that leaves the boot out is refused, or not affirmed without reference values for it."""
    intermediates = world.attester.identity().intermediates
    enrolment = world.attester.enrolment
    bare = Tpm2Attester(
        tpm, pcr=PCR, more_pcrs=(), log=world.attester.log, intermediates=intermediates, enrolment=enrolment
    )
    with pytest.raises(AttestationError, match="expected a claim 'pcr-0'"):
        world.appraise(bare.evidence(BINDING))
    reference = dataclasses.replace(world.reference, accepted=accepted_events(EVENTS))
    result = world.appraise(bare.evidence(BINDING), reference)
    assert result.unchecked == ("pcr-0, pcr-2, pcr-4, pcr-7 (no reference value)",)
    assert not result.affirmed


def test_measurements_without_any_reference_value_are_not_affirmed(tpm: Tpm, authority: Authority) -> None:
    """A quote over nothing measured affirms no executable."""
    attester = certified_attester(tpm, authority)
    anchors = {"emulated:maker": authority.root}
    enrol(attester, anchors)
    reference = dataclasses.replace(make_reference(anchors), accepted=BOOT)
    result = appraise(attester.evidence(BINDING), reference)
    assert TrustClaim.EXECUTABLES not in result.vector
    assert not result.affirmed


def test_registers_of_the_boot_are_compared(world: World, tpm: Tpm) -> None:
    """Registers that are quoted along count with a reference value, and are refused with another."""
    identity = world.attester.identity()
    attester = Tpm2Attester(
        tpm,
        pcr=PCR,
        more_pcrs=range(10),
        log=world.attester.log,
        intermediates=identity.intermediates,
        enrolment=world.attester.enrolment,
    )
    evidence = attester.evidence(BINDING)
    loose = world.appraise(evidence)
    assert not loose.affirmed
    assert loose.unchecked == ("pcr-1, pcr-3, pcr-5, pcr-6, pcr-8, pcr-9 (no reference value)",)
    accepted = {**world.reference.accepted, **{f"pcr-{pcr}": frozenset({"00" * 32}) for pcr in range(10)}}
    assert world.appraise(evidence, dataclasses.replace(world.reference, accepted=accepted)).affirmed
    pcr_extend(tpm, 7, b"s" * 32)
    with pytest.raises(AttestationError, match="expected pcr-7 to be one of 1"):
        world.appraise(attester.evidence(BINDING), dataclasses.replace(world.reference, accepted=accepted))


def test_an_attester_goes_on_with_the_log_of_the_last(world: World, tpm: Tpm) -> None:
    """The register outlives the process; without the log that belongs to it no Attester starts."""
    assert Tpm2Attester(tpm, pcr=PCR, log=world.attester.log).log == EventLog(EVENTS)
    with pytest.raises(AttestationError, match="PCR 14 holds something else than the event log says"):
        Tpm2Attester(tpm, pcr=PCR)


@pytest.mark.parametrize("pcr", [-1, 16, 23, 24])
def test_registers_that_software_can_set_back_are_refused(tpm: Tpm, pcr: int) -> None:
    """A register that is set back could be extended to anything again."""
    for make in (lambda: Tpm2Attester(tpm, pcr=pcr), lambda: Tpm2Verifier(pcr=pcr)):
        with pytest.raises(AttestationError, match="which only a reset sets back"):
            make()


def test_keys_and_sessions_are_flushed(world: World) -> None:
    """A TPM holds three objects; many quotes and refused challenges leave none behind."""
    challenge = AkChallenge(bytes(100), bytes(68))
    for _ in range(10):
        world.evidence()
        with pytest.raises(TpmError, match="ACTIVATE_CREDENTIAL"):
            world.attester.activate(challenge)
    assert world.appraise(world.evidence()).affirmed


def test_a_deployment_is_measured_as_the_relying_party_expects(tpm: Tpm, authority: Authority) -> None:
    """Code and manifest are computed on both sides; another manifest or another configuration is refused."""
    spec, manifest = EnclaveSpec(memory_bytes=64 << 20), json.dumps({"bundle": 1}).encode()
    attester = certified_attester(tpm, authority)
    anchors = {"emulated:maker": authority.root}
    enrol(attester, anchors)
    for event in deployment_events(spec, manifest):
        attester.measure(event)
    evidence = attester.evidence(BINDING)
    for expected, good in (
        (deployment_events(spec, manifest), True),
        (deployment_events(spec, manifest + b" "), False),
        (deployment_events(EnclaveSpec(memory_bytes=65 << 20), manifest), False),
    ):
        reference = dataclasses.replace(make_reference(anchors), accepted=accepted_events(expected) | BOOT)
        if good:
            assert appraise(evidence, reference).affirmed
        else:
            with pytest.raises(AttestationError, match="accepted values"):
                appraise(evidence, reference)
