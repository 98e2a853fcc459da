"""Each check on evidence that is in order but for one thing, made under roots of the tests' own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import attestation_intel as intel
import attestation_snp as snp
import pytest
from attestation_pki import NOW, Request, issue, revoke, sign_raw
from attestation_snp import make_chain, make_gpu_chain, make_gpu_report, make_report
from cryptography import x509

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

VLEK = {"signer_name": "SEV-VLEK-Milan", "names": ("vlek", "asvk", "ark")}


def _snp(
    chain: snp.AmdChain, report: bytearray | None = None, reference: ReferenceValues | None = None
) -> AttestationResult:
    evidence = chain.evidence(make_report() if report is None else report)
    return verifier("sev-snp").appraise(
        evidence, binding=snp.BINDING, reference=reference or chain.reference(), now=NOW
    )


def _sgx(
    body: bytes | None = None, collateral: dict[str, str] | None = None, reference: ReferenceValues | None = None
) -> AttestationResult:
    made = intel.make_intel()
    evidence = made.evidence(made.quote() if body is None else body, collateral)
    return verifier("sgx").appraise(evidence, binding=intel.BINDING, reference=reference or made.reference(), now=NOW)


# SEV-SNP


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


# SGX and TDX


def test_a_sgx_quote_in_order_is_affirmed_as_emulated() -> None:
    """Under a root that is not Intel's, all that is required is affirmed, and the result says that it is emulated."""
    result = _sgx()
    assert result.affirmed
    assert result.provenance is Provenance.EMULATED
    assert result.claims["isv-svn"] == str(intel.ISV_SVN)


def test_a_quote_under_another_root_than_intels_is_refused() -> None:
    """Without an anchor only Intel's root counts, and an anchor is used alone and by its name."""
    made = intel.make_intel()
    with pytest.raises(AttestationError, match="not authentic"):
        _sgx(reference=made.reference(anchors={}))
    with pytest.raises(AttestationError, match="anchor 'more' is unknown"):
        _sgx(reference=made.reference(anchors={"more": made.root.der}))
    with pytest.raises(AttestationError, match="cannot be read"):
        _sgx(reference=made.reference(anchors={"intel-root": b"no certificate"}))


def test_an_enclave_in_debug_mode_is_refused() -> None:
    """A well-signed quote of an enclave that its host may read is refused."""
    with pytest.raises(AttestationError, match="Debug mode is enabled"):
        _sgx(intel.make_intel().quote(attributes=0x05 | 0x02))


@pytest.mark.parametrize(
    "status",
    [
        "SWHardeningNeeded",
        "ConfigurationNeeded",
        "ConfigurationAndSWHardeningNeeded",
        "OutOfDate",
        "OutOfDateConfigurationNeeded",
    ],
)
def test_a_platform_that_is_not_up_to_date_is_a_warning_until_it_is_accepted(status: str) -> None:
    """Intel's doubts about a platform weigh on the result unless the reference accepts that status."""
    made = intel.make_intel()
    result = _sgx(collateral=made.collateral(status=status))
    assert (result.tier, result.affirmed) == (Tier.WARNING, False)
    accepted = {"mrenclave": frozenset({intel.MRENCLAVE.hex()}), "tcb-status": frozenset({status})}
    assert _sgx(collateral=made.collateral(status=status), reference=made.reference(accepted=accepted)).affirmed
    accepted["tcb-status"] = frozenset({"UpToDate"})
    with pytest.raises(AttestationError, match="tcb-status"):
        _sgx(collateral=made.collateral(status=status), reference=made.reference(accepted=accepted))


def test_a_revoked_platform_is_refused_whatever_is_accepted() -> None:
    """No reference value makes a revoked platform acceptable."""
    made = intel.make_intel()
    accepted = {"mrenclave": frozenset({intel.MRENCLAVE.hex()}), "tcb-status": frozenset({"Revoked"})}
    with pytest.raises(AttestationError, match=r"[Rr]evoked"):
        _sgx(collateral=made.collateral(status="Revoked"), reference=made.reference(accepted=accepted))


def test_an_enclave_is_known_by_itself_or_by_signer_product_and_version() -> None:
    """Either its measurement is accepted, or its signer with product and lowest version; less is not affirmed."""
    made = intel.make_intel()
    by_signer = {"mrsigner": frozenset({intel.MRSIGNER.hex()}), "isv-prod-id": frozenset({str(intel.ISV_PROD_ID)})}
    lowest = {"isv-svn": intel.ISV_SVN}
    assert _sgx(reference=made.reference(accepted=by_signer, at_least=lowest)).affirmed
    assert not _sgx(reference=made.reference(accepted=by_signer)).affirmed
    assert not _sgx(reference=made.reference(accepted={})).affirmed
    with pytest.raises(AttestationError, match="isv-svn: expected at least"):
        _sgx(reference=made.reference(accepted=by_signer, at_least={"isv-svn": intel.ISV_SVN + 1}))


def test_who_signed_a_revocation_list_is_checked_up_to_the_root() -> None:
    """The chain of the list's issuer, which the library never reads, must be in order and end in the same root."""
    made = intel.make_intel()
    stranger = issue(Request(name="Intel SGX Root CA", authority=True), intel.p256_key("stranger"))
    other = issue(Request(name="Intel SGX PCK Processor CA", authority=True), intel.p256_key("other"), stranger)
    for chain, word in (
        (other.pem + stranger.pem, "does not end in the root"),
        (made.authority.pem + stranger.pem, "not signed by"),
        (made.tcb_signer.pem + made.root.pem, "not signed by"),
        (made.root.pem, "not signed by"),
    ):
        collateral = made.collateral(pck_crl_issuer_chain=chain.decode())
        with pytest.raises(AttestationError, match=word):
            _sgx(collateral=collateral)


def test_a_revoked_platform_key_or_authority_is_refused() -> None:
    """A platform's certificate on its authority's list, and an authority on the root's, are refused."""
    made = intel.make_intel()
    for collateral in (
        made.collateral(pck_crl=revoke(made.authority, [made.platform.certificate.serial_number]).hex()),
        made.collateral(root_ca_crl=revoke(made.root, [made.authority.certificate.serial_number]).hex()),
    ):
        with pytest.raises(AttestationError, match="certificate chain"):
            _sgx(collateral=collateral)


def test_collateral_that_its_signer_did_not_sign_is_refused() -> None:
    """What was changed after it was signed, or signed by somebody else, is refused."""
    made = intel.make_intel()
    good = made.collateral(status="OutOfDate")
    better = good["tcb_info"].replace("OutOfDate", "UpToDate")
    for collateral in (
        {**good, "tcb_info": better},
        {**good, "tcb_info": better, "tcb_info_signature": sign_raw(intel.p256_key("other"), better.encode()).hex()},
    ):
        with pytest.raises(AttestationError, match="not authentic"):
            _sgx(collateral=collateral)


def test_only_zeros_may_follow_a_quote() -> None:
    """A driver fills its buffer up with zeros; anything else after the chain is refused."""
    made = intel.make_intel()
    assert _sgx(made.quote(tail=bytes(70))).affirmed
    with pytest.raises(AttestationError, match="something after its end"):
        _sgx(made.quote(tail=b"\0\1"))


def test_the_frame_of_a_quote_has_one_form() -> None:
    """No length and no kind of what a quote holds can be another, though nothing signs them."""
    made = intel.make_intel()
    sgx, td, td_1_5 = made.quote(), made.td_quote(), made.td_quote(tdx_1_5=True)
    for tee, body, start in (("SGX", sgx, 48 + 384), ("TDX", td, 48 + 584), ("TDX", td_1_5, 48 + 6 + 648)):
        frame = (
            [*range(start, start + 4), *range(start + 132, start + 138)] if tee == "TDX" else range(start, start + 4)
        )
        chain = body.index(b"-----BEGIN")
        for place in (*frame, *range(chain - 6, chain)):
            for bit in range(8):
                changed = body[:place] + bytes([body[place] ^ 1 << bit]) + body[place + 1 :]
                reference = made.reference(kind=tee.lower(), accepted={})
                with pytest.raises(AttestationError, match="expected a quote with its certificate chain within"):
                    verifier(tee.lower()).appraise(
                        made.evidence(changed, tee=tee), binding=intel.BINDING, reference=reference, now=NOW
                    )


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


def _tdx(*, accepted: tuple[str, ...] = (), **changes: Any) -> AttestationResult:
    made = intel.make_intel()
    measured = {"mrtd": intel.MRTD} | {f"rtmr{index}": bytes([index]) * 48 for index in range(4)}
    values = {name: frozenset({measured[name].hex()}) for name in accepted}
    return verifier("tdx").appraise(
        made.evidence(made.td_quote(**changes), tee="TDX"),
        binding=intel.BINDING,
        reference=made.reference(kind="tdx", accepted=values),
        now=NOW,
    )


@pytest.mark.parametrize("tdx_1_5", [False, True])
def test_a_tdx_quote_of_either_form_is_held_against_all_measurements(tdx_1_5: bool) -> None:  # noqa: FBT001
    """A report of TDX 1.0, and one of 1.5 that holds it, are affirmed where all five measurements are accepted."""
    names = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
    assert _tdx(accepted=names, tdx_1_5=tdx_1_5).affirmed
    assert not _tdx(accepted=names[:-1], tdx_1_5=tdx_1_5).affirmed


@pytest.mark.parametrize("tdx_1_5", [False, True])
@pytest.mark.parametrize("attributes", [0x1, 0x2, 0x80, 1 << 29, 1 << 31], ids=hex)
def test_a_machine_open_to_its_host_is_refused(attributes: int, tdx_1_5: bool) -> None:  # noqa: FBT001
    """Debugging, reserved bits, migration, and pages that the host can make fault are refused, though well signed."""
    sept_ve_disable = 0 if attributes == 1 << 31 else 1 << 28
    with pytest.raises(AttestationError, match=r"Debug mode|Reserved bits|migration|SEPT_VE_DISABLE"):
        _tdx(attributes=attributes | sept_ve_disable, tdx_1_5=tdx_1_5)


def test_a_tdx_quote_is_no_sgx_quote() -> None:
    """The SGX Verifier refuses a virtual machine's quote, though it is authentic."""
    made = intel.make_intel()
    evidence = replace(made.evidence(made.td_quote(), tee="TDX"), kind="sgx")
    with pytest.raises(AttestationError, match="expected an enclave's report"):
        verifier("sgx").appraise(evidence, binding=intel.BINDING, reference=made.reference(), now=NOW)


def test_an_sgx_quote_is_no_tdx_quote() -> None:
    """The TDX Verifier refuses an enclave's quote, though it is authentic."""
    made = intel.make_intel()
    evidence = replace(made.evidence(made.quote()), kind="tdx")
    with pytest.raises(AttestationError, match="expected a virtual machine's report"):
        verifier("tdx").appraise(
            evidence, binding=intel.BINDING, reference=replace(made.reference(), kind="tdx"), now=NOW
        )


# NVIDIA GPUs


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


# Simulated

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
