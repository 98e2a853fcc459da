from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from attestation_samples import (
    SAMPLES,
    Sample,
    appraise,
    flipped,
    nvidia_gpu,
    refused,
    sev_snp,
    sgx,
    spread,
    tdx,
    tdx_outdated,
    with_body,
    with_endorsement,
)

from siniantrust.errors import AttestationError
from siniantrust.trust import Provenance
from siniantrust.trust.attestation import (
    EvidenceBundle,
    ReferenceValues,
    Tier,
    TrustClaim,
    verifier,
)
from siniantrust.trust.attestation.verifiers._snp_keys import check_keys
from siniantrust.trust.attestation.verifiers._snp_report import parse_report

KINDS = pytest.mark.parametrize("kind", SAMPLES)
_ZEROS = "0" * 96


@KINDS
def test_real_evidence_is_authentic(kind: str) -> None:
    """Real evidence passes every check of its authenticity; the mutations below rest on that."""
    assert not refused(SAMPLES[kind]())


@KINDS
def test_a_flipped_bit_of_the_evidence_is_refused(kind: str) -> None:
    """No bit of the evidence can be changed unseen: some 300, all over it."""
    sample = SAMPLES[kind]()
    body = sample.evidence.body
    accepted = [bit for bit in spread(300, 8 * len(body)) if not refused(with_body(sample, flipped(body, bit)))]
    assert accepted == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@KINDS
def test_no_byte_of_evidence_or_endorsements_can_be_changed(kind: str) -> None:
    """The same for every byte of both, with one bit of each: what a random choice missed, this found."""
    sample = SAMPLES[kind]()

    def bits(raw: bytes) -> Iterator[int]:
        return (8 * place + place % 8 for place in range(len(raw)))

    body = sample.evidence.body
    assert [bit for bit in bits(body) if not refused(with_body(sample, flipped(body, bit)))] == []
    for name, raw in sample.evidence.endorsements.items():
        accepted = [bit for bit in bits(raw) if not refused(with_endorsement(sample, name, flipped(raw, bit)))]
        assert accepted == [], name


@KINDS
def test_a_flipped_bit_of_an_endorsement_is_refused(kind: str) -> None:
    """Nor can certificates, collateral and revocation lists: some 200 bits of each, the roots that come along too."""
    sample = SAMPLES[kind]()
    for name, raw in sample.evidence.endorsements.items():
        accepted = [
            bit for bit in spread(200, 8 * len(raw)) if not refused(with_endorsement(sample, name, flipped(raw, bit)))
        ]
        assert accepted == [], name


@KINDS
def test_evidence_that_was_cut_or_lengthened_is_refused(kind: str) -> None:
    """Evidence ends where it says; only a driver's zeros may follow an Intel quote."""
    sample = SAMPLES[kind]()
    body = sample.evidence.body
    needed = len(body.rstrip(b"\0"))
    for size in spread(50, needed):
        assert refused(with_body(sample, body[:size])), size
    for tail in (b"\1", b"x" * 40, body):
        assert refused(with_body(sample, body + tail))
    for place in spread(20, needed):
        assert refused(with_body(sample, body[:place] + b"\0" + body[place:]))


@KINDS
def test_another_binding_is_refused(kind: str) -> None:
    """Evidence that answers another challenge, or vouches for another key, is a replay."""
    sample = SAMPLES[kind]()
    for bit in range(0, 256, 7):
        with pytest.raises(AttestationError, match="not bound"):
            appraise(replace(sample, binding=flipped(sample.binding, bit)))
    for binding in (b"", sample.binding[:16], bytes(64)):
        with pytest.raises(AttestationError, match="not bound"):
            appraise(replace(sample, binding=binding))


@KINDS
def test_evidence_of_another_kind_is_refused(kind: str) -> None:
    """A Verifier reads its own kind only, whatever the label says."""
    sample = SAMPLES[kind]()
    for other in SAMPLES.keys() - {kind}:
        assert refused(replace(sample, evidence=replace(sample.evidence, kind=other)))


@KINDS
@pytest.mark.parametrize("years", [-30, -8, 8000])
def test_out_of_time_is_refused(kind: str, years: int) -> None:
    """Certificates and collateral hold for a while only; NVIDIA's never end."""
    sample = SAMPLES[kind]()
    year = sample.now.year + years
    if kind == "nvidia-gpu" and years > 0:
        pytest.skip("NVIDIA's certificates are valid to the last second of the year 9999")
    now = sample.now.replace(year=min(year, 9999))
    assert refused(replace(sample, now=now))


@pytest.mark.parametrize("make", [sgx, tdx])
def test_stale_collateral_is_refused(make: type[Sample]) -> None:
    """Collateral is refused before it was issued and after its next update was due, a month later."""
    sample = make()  # type: ignore[call-arg]
    for days in (-2, 35, 365):
        with pytest.raises(AttestationError, match=r"future|xpired"):
            appraise(replace(sample, now=sample.now + timedelta(days=days)))


def test_a_time_without_zone_is_refused() -> None:
    """A naive time would mean another moment on every machine."""
    for make in SAMPLES.values():
        sample = make()
        with pytest.raises(AttestationError, match="time zone"):
            appraise(replace(sample, now=sample.now.replace(tzinfo=None)))


def test_swapped_collateral_is_refused() -> None:
    """Collateral of another platform is refused, as a whole and field by field."""
    first, second = sgx(), tdx()
    own = json.loads(first.evidence.endorsements["collateral"])
    foreign = json.loads(second.evidence.endorsements["collateral"])
    assert refused(with_endorsement(first, "collateral", second.evidence.endorsements["collateral"]))
    assert refused(with_endorsement(second, "collateral", first.evidence.endorsements["collateral"]))
    for name in own:
        if own[name] != foreign[name]:
            mixed = json.dumps({**own, name: foreign[name]}).encode()
            assert refused(with_endorsement(first, "collateral", mixed)), name
    lists = ("pck_crl", "pck_crl_issuer_chain")
    mixed = json.dumps({**own, **{name: foreign[name] for name in lists}}).encode()
    assert refused(with_endorsement(first, "collateral", mixed))


def test_collateral_in_other_words_is_refused() -> None:
    """The same collateral written another way is not taken: what is signed has one form."""
    sample = sgx()
    own = json.loads(sample.evidence.endorsements["collateral"])
    others = [
        {**own, "pck_crl": own["pck_crl"].upper()},
        {**own, "tcb_info": own["tcb_info"].replace(":", ": ", 1)},
        {**own, "pck_crl_issuer_chain": own["pck_crl_issuer_chain"].replace("\n", "\n\n", 1)},
        {**own, "pck_crl_issuer_chain": "note\n" + own["pck_crl_issuer_chain"]},
        {**own, "more": ""},
        {name: own[name] for name in own if name != "pck_crl"},
        {**own, "qe_identity": None},
    ]
    for other in others:
        assert refused(with_endorsement(sample, "collateral", json.dumps(other).encode()))
    assert refused(replace(sample, evidence=replace(sample.evidence, endorsements={})))


def test_an_older_tcb_is_refused() -> None:
    """A quote of a machine that is behind every level of its collateral is refused."""
    with pytest.raises(AttestationError, match="No matching TCB level"):
        appraise(tdx_outdated())


def test_swapped_amd_certificates_are_refused() -> None:
    """Every certificate of the chain stands at its own place."""
    sample = sev_snp()
    chain = dict(sample.evidence.endorsements)
    for first, second in (("vcek", "ask"), ("ask", "ark"), ("vcek", "ark")):
        swapped = {**chain, first: chain[second], second: chain[first]}
        assert refused(replace(sample, evidence=replace(sample.evidence, endorsements=swapped)))
        doubled = {**chain, first: chain[second]}
        assert refused(replace(sample, evidence=replace(sample.evidence, endorsements=doubled)))
    for missing in chain:
        left = {name: raw for name, raw in chain.items() if name != missing}
        assert refused(replace(sample, evidence=replace(sample.evidence, endorsements=left)))
    as_vlek = {"vlek": chain["vcek"], "asvk": chain["ask"], "ark": chain["ark"]}
    assert refused(replace(sample, evidence=replace(sample.evidence, endorsements=as_vlek)))


def test_real_sgx_claims_are_held_against_reference_values() -> None:
    """The sample is affirmed where its measurement and its platform's status are accepted, and else is not."""
    sample = sgx()
    accepted = {"mrenclave": frozenset({"33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb"})}
    doubtful = appraise(sample, accepted=accepted)
    assert (doubtful.tier, doubtful.affirmed) == (Tier.WARNING, False)
    assert doubtful.vector[TrustClaim.HARDWARE] is Tier.WARNING
    accepted["tcb-status"] = frozenset({"ConfigurationAndSWHardeningNeeded"})
    affirmed = appraise(sample, accepted=accepted)
    assert affirmed.affirmed
    assert affirmed.provenance is Provenance.HARDWARE
    accepted["advisory-ids"] = frozenset({"INTEL-SA-00289"})
    with pytest.raises(AttestationError, match="advisory-ids"):
        appraise(sample, accepted=accepted)
    accepted["advisory-ids"] = frozenset({"INTEL-SA-00289", "INTEL-SA-00615"})
    assert appraise(sample, accepted=accepted).affirmed
    accepted["tcb-status"] = frozenset({"UpToDate"})
    with pytest.raises(AttestationError, match="tcb-status: expected UpToDate"):
        appraise(sample, accepted=accepted)


def test_real_tdx_claims_are_held_against_reference_values() -> None:
    """The sample is affirmed only where all five measurements are accepted."""
    sample = tdx()
    names = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
    claims = appraise(sample).claims
    accepted = {name: frozenset({claims[name]}) for name in names}
    assert appraise(sample, accepted=accepted).affirmed
    for name in names:
        fewer = {each: values for each, values in accepted.items() if each != name}
        assert not appraise(sample, accepted=fewer).affirmed
        with pytest.raises(AttestationError, match=f"{name}: expected"):
            appraise(sample, accepted={**accepted, name: frozenset({"ab" * 48})})


def test_the_real_sev_snp_report_is_authentic_but_its_debug_bit_is_refused() -> None:
    """Chain, chip and TCB of the sample hold under AMD's own root; its machine allows debugging, and so is refused."""
    sample = sev_snp()
    report = parse_report(sample.evidence.body)
    reference = ReferenceValues(kind="sev-snp")
    assert check_keys(sample.evidence, report, reference=reference, now=sample.now) == (Provenance.HARDWARE, False)
    with pytest.raises(AttestationError, match="policy allows debugging"):
        appraise(sample)


def test_a_real_gpu_is_never_affirmed_offline() -> None:
    """Even with every measurement accepted, what rests on NVIDIA's services is unchecked and said to be so."""
    sample = nvidia_gpu()
    bare = appraise(sample)
    assert (bare.claims["driver-version"], bare.claims["vbios-version"]) == ("550.90.07", "96.00.9F.00.01")
    assert len([name for name in bare.claims if name.startswith("measurement-")]) == 64
    accepted = {name: frozenset({value}) for name, value in bare.claims.items()}
    result = appraise(sample, accepted=accepted)
    assert result.vector[TrustClaim.EXECUTABLES] is Tier.AFFIRMING
    assert result.tier is Tier.NONE
    assert any("OCSP" in line for line in result.unchecked)
    assert any("RIM" in line for line in result.unchecked)


def test_a_bit_that_another_verifier_let_pass_is_refused() -> None:
    """A published package passes this TDX quote with bit 800 flipped, in the attester's measurement; this does not."""
    sample = tdx()
    with pytest.raises(AttestationError, match="not authentic"):
        appraise(with_body(sample, flipped(sample.evidence.body, 800)))


def test_evidence_of_no_known_kind_has_no_verifier() -> None:
    """An unknown kind is an error that lists those there are."""
    with pytest.raises(AttestationError, match=r"'sgx2'.*sev-snp"):
        verifier(EvidenceBundle(kind="sgx2", body=b"").kind)


def test_time_zones_do_not_matter() -> None:
    """The same moment in another zone gives the same result."""
    sample = tdx()
    other = replace(sample, now=datetime(2025, 6, 20, tzinfo=UTC).astimezone())
    assert appraise(other).claims == appraise(sample).claims
