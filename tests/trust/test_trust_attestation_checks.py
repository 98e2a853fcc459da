"""Each check on a report of SEV-SNP that is in order but for one thing, made under roots of the tests' own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import attestation_intel as intel
import attestation_snp as snp
import pytest
from attestation_pki import NOW, Request, issue, revoke
from attestation_snp import make_chain, make_report
from cryptography import x509

from siniantrust.errors import AttestationError
from siniantrust.trust import Provenance
from siniantrust.trust.attestation import (
    AttestationResult,
    EvidenceBundle,
    ReferenceValues,
    Tier,
    TrustClaim,
    verifier,
)

VLEK = {"signer_name": "SEV-VLEK-Milan", "names": ("vlek", "asvk", "ark")}


def _snp(
    chain: snp.AmdChain, report: bytearray | None = None, reference: ReferenceValues | None = None
) -> AttestationResult:
    evidence = chain.evidence(make_report() if report is None else report)
    return verifier("sev-snp").appraise(
        evidence, binding=snp.BINDING, reference=reference or chain.reference(), now=NOW
    )


def test_a_snp_report_in_order_is_affirmed_as_emulated() -> None:
    """Under a root that is not AMD's, all that is required is affirmed, and the result says that it is emulated."""
    result = _snp(make_chain())
    assert result.affirmed
    assert result.provenance is Provenance.EMULATED


def test_a_root_that_nobody_trusts_is_refused() -> None:
    """Without an anchor, only AMD's roots count; an anchor with the same name but another key does not help."""
    chain = make_chain()
    stranger = issue(Request(name="ARK-Milan", authority=True), snp.rsa_key("stranger"))
    for anchors in ({}, {"test-root": stranger.der}):
        with pytest.raises(AttestationError, match="neither the vendor's"):
            _snp(chain, reference=chain.reference(anchors=anchors))


def test_snp_debugging_is_refused_even_where_the_policy_is_accepted() -> None:
    """No reference value makes a debuggable machine acceptable."""
    chain = make_chain()
    policy = 0x30000 | 1 << 19
    accepted = {"measurement": frozenset({snp.MEASUREMENT.hex()}), "policy": frozenset({f"{policy:016x}"})}
    with pytest.raises(AttestationError, match="debugging"):
        _snp(chain, make_report(policy=policy), chain.reference(accepted=accepted))


@pytest.mark.parametrize(
    ("change", "name", "value", "word"),
    [
        ({"vmpl": 2}, "vmpl", "2", "privilege level"),
        ({"policy": 0x30000 | 1 << 18}, "policy", f"{0x30000 | 1 << 18:016x}", "migration agent"),
    ],
)
def test_a_weaker_machine_needs_a_reference_value(change: dict[str, int], name: str, value: str, word: str) -> None:
    """A lower privilege level, and a migration agent, are refused unless the reference accepts just that."""
    chain = make_chain()
    with pytest.raises(AttestationError, match=word):
        _snp(chain, make_report(**change))  # type: ignore[arg-type]
    accepted = {"measurement": frozenset({snp.MEASUREMENT.hex()}), name: frozenset({value})}
    assert _snp(chain, make_report(**change), chain.reference(accepted=accepted)).affirmed  # type: ignore[arg-type]


@pytest.mark.parametrize("component", snp.TCB)
def test_a_tcb_below_the_reference_is_refused(component: str) -> None:
    """Each component of the platform's TCB is held against its lowest value."""
    chain = make_chain()
    lowest = {**{f"tcb-{name}": value for name, value in snp.TCB.items()}, f"tcb-{component}": snp.TCB[component] + 1}
    with pytest.raises(AttestationError, match=f"tcb-{component}: expected at least"):
        _snp(chain, reference=chain.reference(at_least=lowest))
    del lowest[f"tcb-{component}"]
    assert _snp(chain, reference=chain.reference(at_least=lowest)).vector[TrustClaim.HARDWARE] is Tier.NONE


@pytest.mark.parametrize("component", snp.TCB)
def test_a_key_for_another_tcb_is_refused(component: str) -> None:
    """The report's TCB is the one that its key was certified for."""
    older = {**snp.TCB, component: snp.TCB[component] + 1}
    with pytest.raises(AttestationError, match="certified for TCB"):
        _snp(make_chain(snp.leaf_request(tcb=older)))


def test_a_key_of_another_chip_is_refused() -> None:
    """A VCEK is one chip's; a report in whose place another chip stands, or none, is refused."""
    with pytest.raises(AttestationError, match="another chip"):
        _snp(make_chain(snp.leaf_request(chip_id=b"another".ljust(64, b"\x11"))))
    with pytest.raises(AttestationError, match="lacks AMD's extension"):
        _snp(make_chain(snp.leaf_request(chip_id=None)))
    with pytest.raises(AttestationError, match="masks the chip"):
        _snp(make_chain(snp.leaf_request(chip_id=bytes(64))), make_report(chip_id=bytes(64)))


def test_a_turin_machine_has_its_own_layout() -> None:
    """Turin's TCB has one more component and another order, and its chip's name is 8 bytes."""
    tcb = {**snp.TCB, "fmc": 1}
    chain = make_chain(snp.leaf_request(tcb=tcb, chip_id=b"turin..."), signer_name="SEV-Turin", root_name="ARK-Turin")
    report = make_report(version=3, tcb=tcb, chip_id=b"turin...".ljust(64, b"\0"), turin=True)
    assert not _snp(chain, report).affirmed
    lowest = {f"tcb-{name}": value for name, value in tcb.items()}
    result = _snp(chain, report, chain.reference(at_least=lowest))
    assert result.affirmed
    assert result.claims["tcb-fmc"] == "1"


def test_a_vlek_is_accepted_under_its_own_signer_only() -> None:
    """A report may be signed by a VLEK, which names no chip; the two kinds of keys do not stand for each other."""
    vlek = snp.leaf_request("SEV-VLEK", chip_id=None)
    assert _snp(make_chain(vlek, **VLEK), make_report(flags=1 << 2)).affirmed  # type: ignore[arg-type]
    for leaf, signer, report in (
        (vlek, "SEV-Milan", make_report(flags=1 << 2)),
        (snp.leaf_request("SEV-VCEK"), "SEV-VLEK-Milan", make_report(flags=1 << 2)),
    ):
        with pytest.raises(AttestationError, match="expected certificates for"):
            _snp(make_chain(leaf, signer_name=signer, names=("vlek", "asvk", "ark")), report)
    with pytest.raises(AttestationError, match="expected the endorsements vcek"):
        _snp(make_chain(vlek, **VLEK), make_report())  # type: ignore[arg-type]


def test_without_a_revocation_list_the_platform_is_not_affirmed() -> None:
    """What was not checked is said, and what rests on it is not affirmed."""
    result = _snp(make_chain(crl=False))
    assert result.vector[TrustClaim.HARDWARE] is Tier.NONE
    assert not result.affirmed
    assert "revocation" in result.unchecked[0]


@pytest.mark.parametrize(
    ("crl", "word"),
    [
        (lambda chain: revoke(chain.root, [chain.signer.certificate.serial_number]), "revoked"),
        (lambda chain: revoke(chain.root, next_update=NOW - timedelta(hours=1)), "not valid at"),
        (lambda chain: revoke(chain.signer), "not signed by"),
        (lambda _: revoke(issue(Request(name="ARK-Milan"), snp.rsa_key("stranger"))), "not signed by"),
        (lambda _: b"no list", "cannot be read"),
    ],
)
def test_a_revocation_list_counts(crl: Callable[[snp.AmdChain], bytes], word: str) -> None:
    """A revoked signer, a list that is too old, and one of somebody else are refused."""
    chain = make_chain()
    with pytest.raises(AttestationError, match=word):
        _snp(dataclasses.replace(chain, more={"crl": crl(chain)}))


def test_a_signer_that_may_not_sign_is_refused() -> None:
    """The certificate between root and leaf must be an authority, within the depth that its issuer allows."""
    chain = make_chain()
    plain = issue(Request(name="SEV-Milan"), snp.rsa_key("signer"), chain.root)
    with pytest.raises(AttestationError, match="does not say that it may sign"):
        _snp(dataclasses.replace(chain, signer=plain))
    shallow = issue(Request(name="ARK-Milan", authority=True, path_length=0), snp.rsa_key("root"))
    with pytest.raises(AttestationError, match="may not sign certificates at this place"):
        _snp(dataclasses.replace(chain, root=shallow))


@pytest.mark.filterwarnings("ignore:Attribute's length")  # from making it
def test_a_certificate_with_a_name_that_cannot_be_is_refused() -> None:
    """A country of five letters is refused, not warned of."""
    country = x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "Milan", _validate=False)
    chain = make_chain()
    odd = issue(replace(snp.leaf_request(), more=(country,)), snp.p384_key("leaf"), chain.signer)
    with pytest.raises(AttestationError, match="vcek: cannot be read"):
        _snp(dataclasses.replace(chain, leaf=odd))


def test_a_certificate_out_of_time_is_refused() -> None:
    """Every certificate of the chain must be valid now."""
    for late in (
        Request(name="SEV-Milan", authority=True, end=NOW - timedelta(days=1)),
        Request(name="SEV-Milan", authority=True, start=NOW + timedelta(days=1)),
    ):
        chain = make_chain()
        expired = issue(late, snp.rsa_key("signer"), chain.root)
        with pytest.raises(AttestationError, match="'SEV-Milan' is valid from"):
            _snp(dataclasses.replace(chain, signer=expired))


def test_another_chips_key_does_not_sign_for_this_one() -> None:
    """A report that another key signed is refused, though the chain is in order."""
    chain = make_chain()
    stranger = issue(snp.leaf_request(), snp.p384_key("stranger"), chain.signer)
    evidence = dataclasses.replace(chain, leaf=stranger).evidence(make_report())
    wrong = {**evidence.endorsements, "vcek": chain.leaf.der}
    with pytest.raises(AttestationError, match="signature is not that of the certified key"):
        verifier("sev-snp").appraise(
            replace(evidence, endorsements=wrong), binding=snp.BINDING, reference=chain.reference(), now=NOW
        )
    weak = issue(snp.leaf_request(), intel.p256_key("weak"), chain.signer)
    with pytest.raises(AttestationError, match="P-384"):
        verifier("sev-snp").appraise(
            replace(evidence, endorsements={**wrong, "vcek": weak.der}),
            binding=snp.BINDING,
            reference=chain.reference(),
            now=NOW,
        )


def test_a_signature_whose_last_bits_do_not_count_is_refused() -> None:
    """A certificate and a list may not be written in a second way, by saying that bits at the end are unused."""
    chain = make_chain()
    even = next(
        each
        for serial in range(10, 100)
        if not (each := issue(snp.leaf_request(serial=serial), snp.p384_key("leaf"), chain.signer)).der[-1] & 1
    )
    evidence = dataclasses.replace(chain, leaf=even).evidence(make_report())
    end = -len(even.certificate.signature)
    assert even.der[end - 1] == 0
    spelled = even.der[: end - 1] + b"\1" + even.der[end:]
    assert _snp(dataclasses.replace(chain, leaf=even)).affirmed
    with pytest.raises(AttestationError, match="unused bits"):
        verifier("sev-snp").appraise(
            replace(evidence, endorsements={**evidence.endorsements, "vcek": spelled}),
            binding=snp.BINDING,
            reference=chain.reference(),
            now=NOW,
        )


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"version": 1}, "version 2 to 5"),
        ({"version": 6}, "version 2 to 5"),
        ({"algorithm": 2}, "algorithm 1"),
        ({"flags": 7 << 2}, "no known key"),
    ],
)
def test_an_unknown_form_of_report_is_refused(change: dict[str, int], word: str) -> None:
    """Versions, algorithms and signing keys that are not known are refused, though the signature holds."""
    with pytest.raises(AttestationError, match=word):
        _snp(make_chain(), make_report(**change))  # type: ignore[arg-type]


def test_all_versions_are_read() -> None:
    """Versions 2 to 5 have what is read at the same places."""
    for version in range(2, 6):
        assert _snp(make_chain(), make_report(version=version)).claims["version"] == str(version)


def test_evidence_that_is_too_large_is_refused() -> None:
    """Nobody's evidence makes a Verifier read without end."""
    made = intel.make_intel()
    for kind, endorsement in (("sgx", "collateral"), ("nvidia-gpu", "chain")):
        for body, name in ((bytes(1 << 17), endorsement), (made.quote(), "other")):
            evidence = EvidenceBundle(kind=kind, body=body, endorsements={name: made.root.pem})
            with pytest.raises(AttestationError, match=r"at most|131072 bytes|exactly one endorsement"):
                verifier(kind).appraise(evidence, binding=intel.BINDING, reference=ReferenceValues(kind=kind), now=NOW)
    large = EvidenceBundle(kind="sgx", body=made.quote(), endorsements={"collateral": bytes(2 << 20)})
    with pytest.raises(AttestationError, match="at most"):
        verifier("sgx").appraise(large, binding=intel.BINDING, reference=made.reference(), now=NOW)
