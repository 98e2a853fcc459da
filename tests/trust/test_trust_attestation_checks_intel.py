"""Each check on a quote of SGX or TDX that is in order but for one thing, made under a root of the tests' own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import attestation_intel as intel
import pytest
from attestation_pki import NOW, Request, issue, revoke, sign_raw

from siniantrust.errors import AttestationError
from siniantrust.trust import Provenance
from siniantrust.trust.attestation import (
    AttestationResult,
    ReferenceValues,
    Tier,
    verifier,
)


def _sgx(
    body: bytes | None = None, collateral: dict[str, str] | None = None, reference: ReferenceValues | None = None
) -> AttestationResult:
    made = intel.make_intel()
    evidence = made.evidence(made.quote() if body is None else body, collateral)
    return verifier("sgx").appraise(evidence, binding=intel.BINDING, reference=reference or made.reference(), now=NOW)


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
