"""Quotes of SGX and TDX: what both have in common, on Intel's scheme as ``dcap-qvl`` implements it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from siniantrust._extras import require
from siniantrust.errors import AttestationError
from siniantrust.trust._labels import Provenance
from siniantrust.trust.attestation._certificates import check_chain, load_certificate, load_pem_chain
from siniantrust.trust.attestation._compare import Comparison
from siniantrust.trust.attestation._result import AttestationResult, Tier, TrustClaim
from siniantrust.trust.attestation._roles import EvidenceBundle, ReferenceValues
from siniantrust.trust.attestation._strict import one_line
from siniantrust.trust.attestation.verifiers._collateral import COLLATERAL, read_collateral, root_key
from siniantrust.trust.attestation.verifiers._quote_frame import certificate_chain

ROOT = "intel-root"
_MAX_QUOTE_BYTES = 64 << 10
_UP_TO_DATE = "UpToDate"
_REQUIRED = frozenset({TrustClaim.CONFIGURATION, TrustClaim.EXECUTABLES, TrustClaim.HARDWARE})


@dataclass(frozen=True, slots=True)
class Quote:
    """An authentic quote.

    Attributes:
        form: the name of its report's form.
        report: the report's fields as the library names them; binary ones in hexadecimal.
        platform: claims about the platform and its TCB.
        provenance: ``hardware`` under Intel's root, ``emulated`` under another one.
    """

    form: str
    report: Mapping[str, Any]
    platform: Mapping[str, str]
    provenance: Provenance


def authenticate(evidence: EvidenceBundle, *, reference: ReferenceValues, now: datetime) -> Quote:
    """Check a quote's signature, its chain up to the root, and the collateral's signatures, lists and dates.

    The root is Intel's, which the library carries, or the one that ``reference.anchors`` names ``intel-root``.

    Raises:
        AttestationError: if any of it does not hold.
    """
    library = require("dcap_qvl", extra="attest")
    what = f"{evidence.kind} quote"
    if len(evidence.body) > _MAX_QUOTE_BYTES:
        raise AttestationError(f"{what}: expected at most {_MAX_QUOTE_BYTES} bytes, found {len(evidence.body)}")
    if evidence.endorsements.keys() != {COLLATERAL}:
        raise AttestationError(f"{what}: expected exactly one endorsement, {COLLATERAL!r}")
    collateral = read_collateral(evidence.endorsements[COLLATERAL])
    anchor = _anchor(reference, what)
    now_s = int(now.timestamp())
    chain = load_pem_chain(certificate_chain(evidence.body, what), f"{what}, its chain")
    try:
        # Which TCB is good enough is decided with the reference values, so only claims are asked for. The library still
        # refuses what may never be: debugging, migration and reserved attributes of TDX, platforms that were revoked.
        verified = library.QuoteVerifier(anchor).verify_with_policy(
            evidence.body, collateral.for_library(), now_s, library.QuotePolicy.claims_only(now_s)
        )
    except (ValueError, OverflowError) as fault:
        raise AttestationError(f"{what}: not authentic: {one_line(fault)}") from None
    claims = json.loads(verified.to_json())
    # The library never looks at the roots that come along: they must be the one that it trusted, and in order.
    check_chain(chain, now, f"{what}, its chain")
    root = root_key(chain)
    if hashlib.sha384(root).digest() != bytes(claims["platform"]["root_key_id"]):
        raise AttestationError(f"{what}: its chain does not end in the root that was asked for")
    collateral.check_issuers(root, now)
    ((form, report),) = claims["report"].items()
    return Quote(form, report, _platform(claims), Provenance.HARDWARE if anchor is None else Provenance.EMULATED)


def _anchor(reference: ReferenceValues, what: str) -> bytes | None:
    if unknown := sorted(reference.anchors.keys() - {ROOT}):
        raise AttestationError(f"{what}: the anchor {unknown[0]!r} is unknown; there may be one, {ROOT!r}")
    if not reference.anchors:
        return None
    load_certificate(reference.anchors[ROOT], f"{what}, anchor {ROOT}")
    return reference.anchors[ROOT]


def _platform(claims: Mapping[str, Any]) -> dict[str, str]:
    tcb, platform = claims["tcb"], claims["platform"]
    pck = platform["pck"]
    return {
        "tcb-status": tcb["status"],
        "advisory-ids": ",".join(tcb["advisory_ids"]),
        "tcb-evaluation-data-number": str(tcb["eval_data_number"]),
        "tcb-date": platform["tcb_level"]["tcbDate"],
        "fmspc": bytes(pck["fmspc"]).hex(),
        "ppid": bytes(pck["ppid"]).hex(),
        "pce-svn": str(pck["pce_svn"]),
        "smt-enabled": pck["smt_enabled"],
    }


def conclude(
    kind: str,
    quote: Quote,
    claims: Mapping[str, str],
    *executables: tuple[str, ...],
    reference: ReferenceValues,
    now: datetime,
) -> AttestationResult:
    """Compare the claims of an authentic, bound quote with the reference values.

    Args:
        kind: the kind of evidence.
        quote: the quote.
        claims: what it says, the platform's claims included.
        executables: alternatives of claims, one of which says what runs if all of it is matched.
        reference: the reference values.
        now: when.
    """
    comparison = Comparison(kind, claims, reference)
    hardware = _tcb_tier(claims["tcb-status"], comparison)
    return AttestationResult(
        kind=kind,
        provenance=quote.provenance,
        vector={
            TrustClaim.INSTANCE_IDENTITY: comparison.tier(("ppid",)),
            TrustClaim.CONFIGURATION: Tier.AFFIRMING,
            TrustClaim.EXECUTABLES: comparison.tier(*executables),
            TrustClaim.HARDWARE: hardware,
            TrustClaim.RUNTIME_OPAQUE: hardware,
        },
        required=_REQUIRED,
        claims=claims,
        appraised_at=now,
    )


def _tcb_tier(status: str, comparison: Comparison) -> Tier:
    """Return how far the platform is trusted: affirmed if it is up to date, or the reference accepts its status.

    Any other status is a warning; a platform that was revoked never comes here, since the library refuses it.
    """
    return Tier.AFFIRMING if status == _UP_TO_DATE or comparison.matched("tcb-status") else Tier.WARNING
