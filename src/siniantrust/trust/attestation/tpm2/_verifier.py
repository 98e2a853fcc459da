"""The Verifier of TPM 2.0 evidence.

Reference values that it knows, all compared as text (numbers in decimal, digests in lower-case hexadecimal):

- ``event:NAME`` accepted: the digests that a measurement of that name may have. Every measurement must have one, and
  every name with a reference value must have been measured.
- ``pcr-N`` accepted: the values that a register quoted along may have. Without those of the boot (PCRs 0, 2, 4, 7)
  the configuration is not affirmed: whoever booted something else could measure what it liked.
- ``clock-ms``, ``reset-count``, ``restart-count`` at least or accepted, ``clock-safe`` accepted (``yes`` if not given).
- ``firmware-version``, ``ak-name``, ``ek-name``, ``anchor`` at least or accepted, as wanted.
- anchors ``hardware:NAME``, ``emulated:NAME`` for endorsement keys, ``enrolment:NAME`` for who signs enrolments.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation._result import AttestationResult, Tier, TrustClaim
from siniantrust.trust.attestation._roles import BINDING_BYTES, EvidenceBundle, ReferenceValues
from siniantrust.trust.attestation.tpm2._attest import Quote, check_signature, parse_quote, qualified_name, split_signed
from siniantrust.trust.attestation.tpm2._attester import ENROLMENT, EVENT_LOG, KIND, PCR_VALUE, quoted_data
from siniantrust.trust.attestation.tpm2._ek_chain import anchor_provenance, verify_endorsement
from siniantrust.trust.attestation.tpm2._enrolment import check_enrolment
from siniantrust.trust.attestation.tpm2._event_log import EventLog, parse_event_log
from siniantrust.trust.attestation.tpm2._identity import IDENTITY_NAMES, Identity, parse_identity
from siniantrust.trust.attestation.tpm2._pcr import BOOT_PCRS, DEFAULT_PCR, START, STATIC_PCRS, check_pcrs, composite

EVENT_CLAIM = "event:"
CLOCK, RESETS, RESTARTS, SAFE = "clock-ms", "reset-count", "restart-count", "clock-safe"
_REQUIRED = frozenset(
    {TrustClaim.INSTANCE_IDENTITY, TrustClaim.HARDWARE, TrustClaim.EXECUTABLES, TrustClaim.CONFIGURATION}
)
_NAMES = IDENTITY_NAMES | {EVENT_LOG, ENROLMENT, *(f"{PCR_VALUE}{pcr}" for pcr in STATIC_PCRS)}


class Tpm2Verifier:
    """Appraises quotes of TPM 2.0.

    Args:
        pcr: the register that measurements go to; it is the Relying Party's choice and never taken from evidence.
    """

    def __init__(self, *, pcr: int = DEFAULT_PCR) -> None:
        check_pcrs([pcr])
        self._pcr = pcr

    @property
    def kind(self) -> str:
        """``tpm2``."""
        return KIND

    def appraise(
        self, evidence: EvidenceBundle, *, binding: bytes, reference: ReferenceValues, now: datetime
    ) -> AttestationResult:
        """Appraise a quote; see ``Verifier.appraise``.

        Without an enrolment nothing is affirmed: a key outside any TPM could have signed the quote.

        Raises:
            AttestationError: if it is malformed, not authentic, not bound, expired, or contradicts a reference value.
        """
        for found in (evidence.kind, reference.kind):
            if found != KIND:
                raise AttestationError(f"TPM verifier: expected evidence and reference values of {KIND}, found {found}")
        for name in evidence.endorsements.keys() - _NAMES:
            raise AttestationError(f"TPM evidence: it has an endorsement {name[:80]!r}, which no quote needs")
        identity = parse_identity(evidence.endorsements)
        quote = _authentic(evidence.body, identity, binding)
        log = parse_event_log(evidence.endorsements.get(EVENT_LOG, b""))
        pcrs = _registers(evidence.endorsements)
        self._check_registers(quote, log, pcrs)
        anchor = verify_endorsement(identity, reference.anchors, now)
        enrolled = ENROLMENT in evidence.endorsements and check_enrolment(
            evidence.endorsements[ENROLMENT], identity, reference.anchors
        )
        claims = _claims(quote, log, pcrs, identity, anchor)
        _compare(claims, reference, log)
        vector, unchecked = _trust(claims, reference, enrolled=enrolled)
        return AttestationResult(
            kind=KIND,
            provenance=anchor_provenance(anchor),
            vector=vector,
            required=_REQUIRED,
            claims=claims,
            appraised_at=now,
            unchecked=unchecked,
        )

    def _check_registers(self, quote: Quote, log: EventLog, pcrs: Mapping[int, bytes]) -> None:
        if self._pcr in pcrs:
            raise AttestationError(f"TPM evidence: PCR {self._pcr} follows from the event log and is not given besides")
        values = {**pcrs, self._pcr: log.value()}
        if quote.pcrs != values.keys():
            raise AttestationError(
                f"TPM quote: expected one over PCRs {sorted(values)}, found one over {sorted(quote.pcrs)}"
            )
        if not hmac.compare_digest(quote.pcr_digest, composite(values)):
            raise AttestationError(
                f"TPM quote: the registers hold something else than event log and values say; PCR {self._pcr} was "
                "extended by something that the log does not tell"
            )


def _authentic(body: bytes, identity: Identity, binding: bytes) -> Quote:
    """Return the quote, which the attestation key signed for this binding."""
    if len(binding) != BINDING_BYTES:
        raise AttestationError(f"TPM verifier: expected a binding of {BINDING_BYTES} bytes, found {len(binding)}")
    statement, signature = split_signed(body)
    check_signature(identity.ak, statement, signature)
    quote = parse_quote(statement)
    if quote.statement.signer != qualified_name(identity.ak):
        raise AttestationError("TPM quote: expected the signer to be the endorsement hierarchy's key, found another")
    if not hmac.compare_digest(quote.statement.extra_data, quoted_data(binding)):
        raise AttestationError("TPM quote: expected our binding, found another; it may be a replay, ask again")
    return quote


def _registers(endorsements: Mapping[str, bytes]) -> dict[int, bytes]:
    """Return the values of the registers that were quoted along."""
    found = {pcr: endorsements[f"{PCR_VALUE}{pcr}"] for pcr in STATIC_PCRS if f"{PCR_VALUE}{pcr}" in endorsements}
    for pcr, value in found.items():
        if len(value) != len(START):
            raise AttestationError(f"TPM evidence: expected PCR {pcr} of {len(START)} bytes, found {len(value)}")
    return found


def _claims(quote: Quote, log: EventLog, pcrs: Mapping[int, bytes], identity: Identity, anchor: str) -> dict[str, str]:
    statement = quote.statement
    claims = {
        "anchor": anchor,
        "ak-name": identity.ak.name.hex(),
        "ek-name": identity.ek.name.hex(),
        "firmware-version": str(statement.firmware_version),
        CLOCK: str(statement.clock_ms),
        RESETS: str(statement.reset_count),
        RESTARTS: str(statement.restart_count),
        SAFE: "yes" if statement.safe else "no",
    }
    claims |= {f"{PCR_VALUE}{pcr}": value.hex() for pcr, value in pcrs.items()}
    for event in log.events:
        name = f"{EVENT_CLAIM}{event.name}"
        digests = dict.fromkeys([*claims.get(name, "").split(), event.digest.hex()])
        claims[name] = " ".join(digests)
    return claims


def _compare(claims: Mapping[str, str], reference: ReferenceValues, log: EventLog) -> None:
    """Hold every claim against its reference value, and every measurement against one that it must have."""
    for event in log.events:
        if f"{EVENT_CLAIM}{event.name}" not in reference.accepted:
            raise AttestationError(
                f"TPM event log: {event.name!r} was measured and has no reference value; it is refused"
            )
    accepted = {SAFE: frozenset({"yes"}), **reference.accepted}
    for name in [*accepted, *reference.at_least]:
        if name not in claims:
            raise AttestationError(f"TPM evidence: expected a claim {name!r}, as the reference values do, found none")
    for name, values in accepted.items():
        # Something may have been measured under one name several times; what else there is has one value.
        for found in claims[name].split() if name.startswith(EVENT_CLAIM) else [claims[name]]:
            if found not in values:
                raise AttestationError(
                    f"TPM evidence: expected {name} to be one of {len(values)} accepted values, found {found[:80]}"
                    f"{_HINTS.get(name, '')}"
                )
    for name, lowest in reference.at_least.items():
        if not claims[name].isdecimal() or int(claims[name]) < lowest:
            raise AttestationError(
                f"TPM evidence: expected {name} to be at least {lowest}, found {claims[name][:80]}"
                f"{_HINTS.get(name, '')}"
            )


_HINTS = {
    CLOCK: "; the TPM was cleared, or the evidence is of an earlier time",
    RESETS: "; the machine was reset since the reference value was taken",
    RESTARTS: "; the machine slept since the reference value was taken",
    SAFE: "; the TPM lost power without warning, and its clock may have been told before",
}


def _trust(
    claims: Mapping[str, str], reference: ReferenceValues, *, enrolled: bool
) -> tuple[dict[TrustClaim, Tier], tuple[str, ...]]:
    """Return what is affirmed, and what is not and why: nothing here contradicts a reference value any more."""
    if not enrolled:
        return {}, ("that the attestation key lives in the endorsed TPM (no enrolment); everything rests on that",)
    vector = {TrustClaim.INSTANCE_IDENTITY: Tier.AFFIRMING, TrustClaim.HARDWARE: Tier.AFFIRMING}
    unchecked = []
    if any(name.startswith(EVENT_CLAIM) for name in reference.accepted):
        vector[TrustClaim.EXECUTABLES] = Tier.AFFIRMING
    else:
        unchecked.append("measurements (no reference value for any)")
    compared = {CLOCK, RESETS, RESTARTS, *(f"{PCR_VALUE}{pcr}" for pcr in BOOT_PCRS)}
    compared |= {name for name in claims if name.startswith(PCR_VALUE)}
    missing = sorted(compared - reference.accepted.keys() - reference.at_least.keys())
    if missing:
        unchecked.append(f"{', '.join(missing)} (no reference value)")
    else:
        vector[TrustClaim.CONFIGURATION] = Tier.AFFIRMING
    return vector, tuple(unchecked)


def pin_clock(reference: ReferenceValues, result: AttestationResult) -> ReferenceValues:
    """Return reference values that refuse what is older than ``result``, and any reset or sleep since then."""
    same = {name: frozenset({result.claims[name]}) for name in (RESETS, RESTARTS)}
    return replace(
        reference,
        accepted={**reference.accepted, **same},
        at_least={**reference.at_least, CLOCK: int(result.claims[CLOCK])},
    )
