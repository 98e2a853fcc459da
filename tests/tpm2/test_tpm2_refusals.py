from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tpm_world import (
    BINDING,
    EVENTS,
    LIED,
    NOW,
    PCR,
    Authority,
    SoftwareTpm,
    World,
    appraise,
    ecc_area,
    key_bytes,
    make_reference,
    with_endorsements,
)

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation import EvidenceBundle, ReferenceValues
from siniantrust.trust.attestation.tpm2 import Event, EventLog, Tpm2Verifier
from siniantrust.trust.attestation.tpm2._attest import check_signature
from siniantrust.trust.attestation.tpm2._constants import Attributes
from siniantrust.trust.attestation.tpm2._pcr import BOOT_PCRS, composite, encode_selection
from siniantrust.trust.attestation.tpm2._public import AK_TEMPLATE, KeyKind, ek_template
from siniantrust.trust.attestation.tpm2._wire import sized, uint

_AUTHORITY = Authority("maker")
_EK = ecc_area(ec.generate_private_key(ec.SECP256R1()), ek_template(KeyKind.ECC_P256))
_LIAR = SoftwareTpm(_EK)
_STRANGER = Ed25519PrivateKey.generate()
_P256 = bytes.fromhex("06082a8648ce3d030107")  # the curve's name in DER
_REFERENCE = make_reference({"emulated:maker": _AUTHORITY.root})


def _endorsed(liar: SoftwareTpm = _LIAR, **endorsements: bytes) -> dict[str, bytes]:
    """Return the endorsements of a liar whom a careless Relying Party enrolled."""
    return {
        "ek-certificate": _AUTHORITY.certify_ek(_EK),
        "ek-intermediate-0": _AUTHORITY.issuer,
        "enrolment": liar.enrolment(),
        **{name.replace("_", "-"): raw for name, raw in endorsements.items()},
    }


def _evidence(**changed: bytes) -> EvidenceBundle:
    """Return evidence whose signature is good, with fields of the statement replaced."""
    return _LIAR.evidence(_LIAR.statement(**changed), **_endorsed())


def test_the_unchanged_statement_is_affirmed() -> None:
    """What the refusals below start from is accepted: each is refused for its one change."""
    assert appraise(_evidence(), _REFERENCE).affirmed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"magic": b"\xffTCH"}, "magic TPM_GENERATED"),
        ({"kind": uint(2, 0x8014)}, "type of statement"),
        ({"kind": uint(2, 0x801A)}, "type of statement"),
        ({"signer": sized(b"\x00\x0b" + bytes(32))}, "expected the signer"),
        ({"signer": sized(_LIAR.identity.ak.name)}, "expected the signer"),
        ({"signer": sized(b"")}, "a qualified name of 34 bytes"),
        ({"extra": sized(bytes(32))}, "replay"),
        ({"extra": sized(b"")}, "replay"),
        ({"extra": sized(BINDING)}, "replay"),
        ({"safe": b"\x00"}, "clock-safe.*lost power"),
        ({"safe": b"\x02"}, "safe to be 0 or 1"),
        ({"selection": encode_selection([*BOOT_PCRS, PCR + 1])}, "expected one over PCRs"),
        ({"selection": encode_selection([*BOOT_PCRS, PCR, 1])}, "expected one over PCRs"),
        ({"selection": encode_selection([PCR])}, "expected one over PCRs"),
        ({"selection": encode_selection([])}, "expected one over PCRs"),
        ({"selection": encode_selection([16])}, "expected one over PCRs"),
        ({"selection": uint(4, 0)}, "number of PCR banks"),
        ({"selection": uint(4, 1) + uint(2, 4) + b"\x03\x00\x40\x00"}, "PCR bank"),
        ({"digest": sized(composite({**LIED, PCR: bytes(32)}))}, "that the log does not tell"),
        ({"digest": sized(composite({**LIED, 7: b"s" * 32}))}, "that the log does not tell"),
        ({"digest": sized(EventLog(EVENTS).value())}, "that the log does not tell"),
        ({"digest": sized(b"")}, "a digest of 32 bytes"),
        ({"digest": sized(composite(LIED)) + b"\0"}, "nothing more"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_statement_with_one_field_changed_is_refused(change: dict[str, bytes], words: str) -> None:
    """Each field counts, although the signature over the changed statement is good."""
    with pytest.raises(AttestationError, match=words):
        appraise(_evidence(**change), _REFERENCE)


@pytest.mark.parametrize(
    ("clock", "words"),
    [
        ((999, 1, 0), "clock-ms to be at least 1000"),
        ((1000, 2, 0), "the machine was reset"),
        ((1000, 0, 0), "the machine was reset"),
        ((1000, 1, 1), "the machine slept"),
    ],
)
def test_another_clock_is_refused(clock: tuple[int, int, int], words: str) -> None:
    """Clock, resets and restarts are each held against their reference values."""
    pinned = {"reset-count": frozenset({"1"}), "restart-count": frozenset({"0"}), **_REFERENCE.accepted}
    reference = dataclasses.replace(_REFERENCE, accepted=pinned, at_least={"clock-ms": 1000})
    assert appraise(_evidence(), reference).affirmed
    milliseconds, resets, restarts = clock
    with pytest.raises(AttestationError, match=words):
        appraise(_evidence(clock=uint(8, milliseconds) + uint(4, resets) + uint(4, restarts)), reference)


def test_an_unsafe_clock_passes_if_the_relying_party_says_so() -> None:
    """Whoever accepts a clock that may repeat has to write it down."""
    reference = dataclasses.replace(
        _REFERENCE, accepted={**_REFERENCE.accepted, "clock-safe": frozenset({"yes", "no"})}
    )
    assert appraise(_evidence(safe=b"\x00"), reference).affirmed


@pytest.mark.parametrize(
    "attributes",
    [
        AK_TEMPLATE.attributes & ~Attributes.RESTRICTED,
        AK_TEMPLATE.attributes & ~Attributes.FIXED_TPM,
        AK_TEMPLATE.attributes & ~Attributes.FIXED_PARENT,
        AK_TEMPLATE.attributes & ~Attributes.SENSITIVE_DATA_ORIGIN,
        AK_TEMPLATE.attributes & ~Attributes.SIGN,
        AK_TEMPLATE.attributes | Attributes.DECRYPT,
        AK_TEMPLATE.attributes | 1 << 19,
    ],
    ids=hex,
)
def test_a_key_that_is_no_attestation_key_is_refused(attributes: Attributes) -> None:
    """A key that signs what its user likes, or can leave its TPM, vouches for nothing."""
    liar = SoftwareTpm(_EK, dataclasses.replace(AK_TEMPLATE, attributes=Attributes(attributes)))
    with pytest.raises(AttestationError, match="expected a restricted signing key"):
        appraise(liar.evidence(liar.statement(), **_endorsed(liar)), _REFERENCE)


def test_an_endorsement_key_with_other_attributes_is_refused() -> None:
    """An endorsement key is of the standard template, so that a credential to it goes into a TPM only."""
    ek = dataclasses.replace(_EK, attributes=_EK.attributes & ~Attributes.RESTRICTED)
    with pytest.raises(AttestationError, match="expected one of the standard template"):
        appraise(_LIAR.evidence(_LIAR.statement(), **_endorsed(ek_public=ek.encode())), _REFERENCE)


def test_a_key_that_nobody_enrolled_is_not_affirmed() -> None:
    """A key of software beside the certificate of a real TPM affirms nothing without an enrolment."""
    endorsements = _endorsed()
    del endorsements["enrolment"]
    result = appraise(_LIAR.evidence(_LIAR.statement(), **endorsements), _REFERENCE)
    assert not result.affirmed
    assert result.vector == {}


def test_the_enrolment_of_another_key_is_refused() -> None:
    """A record counts for the two keys that it names only."""
    other = SoftwareTpm(_EK)
    with pytest.raises(AttestationError, match="it is for other keys"):
        appraise(_LIAR.evidence(_LIAR.statement(), **_endorsed(enrolment=other.enrolment())), _REFERENCE)


def test_an_enrolment_by_somebody_else_is_refused() -> None:
    """A record that none of the enrolling anchors signed is no record."""
    anchors = {**_REFERENCE.anchors, "enrolment:us": key_bytes(Ed25519PrivateKey.generate())}
    with pytest.raises(AttestationError, match="signed by none of the anchors"):
        appraise(_evidence(), dataclasses.replace(_REFERENCE, anchors=anchors))


@pytest.mark.parametrize("days", [0, 364])
def test_a_certificate_counts_in_its_time(days: int) -> None:
    """An endorsement certificate vouches from its first to its last day."""
    assert appraise(_evidence(), _REFERENCE, now=NOW + timedelta(days=days)).affirmed


@pytest.mark.parametrize("days", [-31, 366])
def test_a_certificate_out_of_its_time_is_refused(days: int) -> None:
    """An endorsement certificate that is expired, or not valid yet, vouches for nothing."""
    with pytest.raises(AttestationError, match="no anchor vouches for it at 203"):
        appraise(_evidence(), _REFERENCE, now=NOW + timedelta(days=days))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ek_certificate": Authority("maker").certify_ek(_EK)}, "no anchor vouches"),
        ({"ek_certificate": _AUTHORITY.certify_ek(_EK, usage="1.3.6.1.5.5.7.3.2")}, "no anchor vouches"),
        ({"ek_certificate": _AUTHORITY.issuer}, "for another key"),
        ({"ek_certificate": _AUTHORITY.certify_ek(_EK, key=_STRANGER.public_key())}, "for another key"),
        ({"ek_certificate": _AUTHORITY.certify_ek(_EK).replace(_P256, _P256[:-1] + b"\x7f")}, "for another key"),
        ({"ek_certificate": b"0"}, "expected a certificate in DER"),
        ({"ek_certificate": None}, "found neither"),
        ({"ek_certificate": bytes(9000)}, "of at most 8192 bytes"),
        ({"ek_intermediate_0": None}, "no anchor vouches"),
        ({"ek_intermediate_0": Authority("maker").issuer}, "no anchor vouches"),
        ({"ek_intermediate_1": _AUTHORITY.issuer}, "does not need"),
        ({"ek_intermediate_2": _AUTHORITY.issuer}, "not numbered from 0 on"),
        ({"ek_public": None}, "lacks the endorsement 'ek-public'"),
        ({"ak_public": None}, "lacks the endorsement 'ak-public'"),
        ({"event_log": None}, "expected its JSON form"),
        ({"event_log": EventLog(EVENTS[:1]).encode()}, "that the log does not tell"),
        ({"event_log": EventLog(EVENTS[::-1]).encode()}, "that the log does not tell"),
        ({"event_log": EventLog((*EVENTS, EVENTS[0])).encode()}, "that the log does not tell"),
        ({"event_log": EventLog(EVENTS * 2000).encode()}, "expected its JSON form"),
        ({"event_log": EventLog(EVENTS).encode() + b" "}, "expected its JSON form"),
        ({"event_log": EventLog((Event("x", EVENTS[0].digest), EVENTS[1])).encode()}, "'x' was measured"),
        ({"pcr_14": EventLog(EVENTS).value()}, "follows from the event log"),
        ({"pcr_0": None}, "expected one over PCRs"),
        ({"pcr_1": bytes(32)}, "expected one over PCRs"),
        ({"pcr_0": b"s" * 32}, "registers hold something else"),
        ({"pcr_0": bytes(31)}, "expected PCR 0 of 32 bytes"),
        ({"pcr_16": bytes(32)}, "which no quote needs"),
        ({"note": b""}, "which no quote needs"),
        ({"enrolment": b""}, "expected a signed record"),
        ({"enrolment": bytes(64) + b"{}"}, "expected a signed record"),
        ({"enrolment": _LIAR.enrolment() + b" "}, "expected a signed record"),
        ({"enrolment": _LIAR.enrolment() + b" " * 2000}, "expected a signed record"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_evidence_with_one_endorsement_changed_is_refused(changed: dict[str, bytes | None], words: str) -> None:
    """Each endorsement counts: another one, a missing one and one too many are refused and named."""
    with pytest.raises(AttestationError, match=words):
        appraise(with_endorsements(_evidence(), **changed), _REFERENCE)


@pytest.mark.parametrize(
    ("anchors", "words"),
    [
        ({"emulated:maker": Authority("maker").root}, "no anchor vouches"),
        ({"maker": _AUTHORITY.root}, "expected a name that starts with one of: hardware:, emulated:, enrolment:"),
        ({"emulated:maker": _AUTHORITY.root, "maker": _AUTHORITY.root}, "anchor 'maker': expected a name"),
        ({"emulated:maker": b"junk"}, "anchor 'emulated:maker'.* expected a certificate"),
        ({}, "name no anchor"),
        ({"emulated:maker": _AUTHORITY.root, "enrolment:us": b"junk"}, "expected an Ed25519 public key"),
        ({"emulated:maker": _AUTHORITY.root, "enrolment:us": _AUTHORITY.root}, "expected an Ed25519 public key"),
    ],
)
def test_anchors_that_do_not_vouch_are_refused(anchors: dict[str, bytes], words: str) -> None:
    """A chain to no anchor, and an anchor that is none or does not say what it stands for, is an error."""
    with pytest.raises(AttestationError, match=words):
        appraise(_evidence(), dataclasses.replace(_REFERENCE, anchors=anchors))


def test_the_key_of_another_tpm_among_the_anchors_does_no_harm() -> None:
    """Anchors may be certificates and keys in any order; a key vouches for itself only."""
    anchors = {"hardware:desk": key_bytes(ec.generate_private_key(ec.SECP256R1())), **_REFERENCE.anchors}
    assert appraise(_evidence(), dataclasses.replace(_REFERENCE, anchors=anchors)).claims["anchor"] == "emulated:maker"


def test_an_anchor_can_be_asked_for_by_name() -> None:
    """Its whole name is compared, spaces included."""
    anchors = {name.replace("maker", "maker of TPMs"): raw for name, raw in _REFERENCE.anchors.items()}
    accepted = {**_REFERENCE.accepted, "anchor": frozenset({"emulated:maker of TPMs"})}
    assert appraise(_evidence(), dataclasses.replace(_REFERENCE, anchors=anchors, accepted=accepted)).affirmed
    with pytest.raises(AttestationError, match="anchor to be one of 1 accepted values, found emulated:maker"):
        appraise(_evidence(), dataclasses.replace(_REFERENCE, accepted=accepted))


def test_an_enrolling_anchor_does_not_vouch_for_endorsement_keys() -> None:
    """What signs enrolments is no maker of TPMs."""
    anchors = {"enrolment:maker": _AUTHORITY.root}
    with pytest.raises(AttestationError, match="name no anchor"):
        appraise(_evidence(), dataclasses.replace(_REFERENCE, anchors=anchors))


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (dataclasses.replace(_REFERENCE, kind="sgx"), "found sgx"),
        (
            dataclasses.replace(_REFERENCE, at_least={"firmware-version": 2}),
            "firmware-version to be at least 2, found 1",
        ),
        (dataclasses.replace(_REFERENCE, at_least={"anchor": 0}), "anchor to be at least 0"),
        (dataclasses.replace(_REFERENCE, at_least={"pcr-3": 0}), "expected a claim 'pcr-3'"),
        (
            dataclasses.replace(_REFERENCE, accepted={**_REFERENCE.accepted, "ek-name": frozenset({"000b"})}),
            "ek-name to be one of 1",
        ),
        (
            dataclasses.replace(_REFERENCE, accepted={**_REFERENCE.accepted, "event:bundle": frozenset()}),
            "event:bundle to be one of 0",
        ),
    ],
)
def test_reference_values_that_do_not_match_are_refused(reference: ReferenceValues, words: str) -> None:
    """Every reference value is compared, and one that nothing can be compared with is an error."""
    with pytest.raises(AttestationError, match=words):
        appraise(_evidence(), reference)


def test_evidence_of_another_kind_is_refused() -> None:
    """The Verifier reads its own kind only."""
    with pytest.raises(AttestationError, match="found sgx"):
        appraise(dataclasses.replace(_evidence(), kind="sgx"), _REFERENCE)


@pytest.mark.parametrize("size", [0, 32, 63, 65])
def test_a_binding_of_another_length_is_refused(size: int) -> None:
    """A binding is 64 bytes; a shorter one might be guessed."""
    with pytest.raises(AttestationError, match="a binding of 64 bytes"):
        appraise(_evidence(), _REFERENCE, binding=bytes(size))


def test_measurements_in_a_register_of_the_attesters_choice_are_refused() -> None:
    """The Relying Party says which register counts; evidence over another one is refused."""
    elsewhere = {3 if pcr == PCR else pcr: value for pcr, value in LIED.items()}
    evidence = _evidence(selection=encode_selection(elsewhere), digest=sized(composite(elsewhere)))
    assert Tpm2Verifier(pcr=3).appraise(evidence, binding=BINDING, reference=_REFERENCE, now=NOW).affirmed
    with pytest.raises(AttestationError, match="expected one over PCRs"):
        appraise(evidence, _REFERENCE)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # of spoilt serial numbers
def test_every_byte_of_evidence_counts(shared_world: World) -> None:
    """Of a real TPM's evidence, a bit flipped in any byte of body or endorsements is refused."""
    evidence = shared_world.evidence()
    assert shared_world.appraise(evidence).affirmed
    mutations = [
        (name, place)
        for name, raw in {"body": evidence.body, **evidence.endorsements}.items()
        for place in range(len(raw))
    ]
    assert len(mutations) > 1000
    believed = []
    for name, place in mutations:
        raw = bytearray(evidence.body if name == "body" else evidence.endorsements[name])
        raw[place] ^= 1 << place % 8
        spoiled = dataclasses.replace(
            evidence,
            body=bytes(raw) if name == "body" else evidence.body,
            endorsements={**evidence.endorsements, **({name: bytes(raw)} if name != "body" else {})},
        )
        try:
            shared_world.appraise(spoiled)
        except AttestationError:
            continue
        believed.append((name, place))
    assert believed == []


def test_evidence_cut_short_anywhere_is_refused(shared_world: World) -> None:
    """Body and endorsements count to their last byte."""
    evidence = shared_world.evidence()
    for cut in range(len(evidence.body)):
        with pytest.raises(AttestationError):
            shared_world.appraise(dataclasses.replace(evidence, body=evidence.body[:cut]))
    for name, raw in evidence.endorsements.items():
        for cut in range(0, len(raw), 7):
            with pytest.raises(AttestationError):
                shared_world.appraise(with_endorsements(evidence, **{name: raw[:cut]}))


def test_an_rsa_key_signs_no_quote() -> None:
    """Attestation keys are on P-256; a key of another kind is refused before anything is verified with it."""
    rsa_key = dataclasses.replace(ek_template(KeyKind.RSA_2048), unique=(b"\xc1" * 256,))
    with pytest.raises(AttestationError, match="expected a key on P-256"):
        check_signature(rsa_key, b"", b"")


def test_a_swapped_attestation_key_is_refused(shared_world: World) -> None:
    """The signature is held against the key that came along, and the enrolment against that key."""
    evidence = shared_world.evidence()
    with pytest.raises(AttestationError, match="signature is not the attestation key's"):
        shared_world.appraise(with_endorsements(evidence, ak_public=_LIAR.identity.ak.encode()))
    forged = _LIAR.evidence(_LIAR.statement(), **{**evidence.endorsements, "ak-public": _LIAR.identity.ak.encode()})
    with pytest.raises(AttestationError, match="it is for other keys"):
        shared_world.appraise(forged)
