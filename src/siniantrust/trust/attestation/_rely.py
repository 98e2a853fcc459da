"""The Relying Party's decision: appraise, and then insist that all of it is affirmed and comes from where it may."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from siniantrust.errors import AttestationError
from siniantrust.trust._evidence import check_provenance
from siniantrust.trust._labels import Provenance
from siniantrust.trust.attestation._reference_file import Reference
from siniantrust.trust.attestation._registry import verifier
from siniantrust.trust.attestation._result import AttestationResult
from siniantrust.trust.attestation._roles import EvidenceBundle, ReferenceValues


def rely_on(
    evidence: EvidenceBundle,
    *,
    name: str,
    binding: bytes,
    reference: ReferenceValues,
    accept: Collection[Provenance],
    now: datetime | None = None,
) -> AttestationResult:
    """Return the result for evidence that may be relied on.

    Args:
        evidence: what the Attester sent.
        name: what is attested, for errors.
        binding: the 64 bytes that the evidence must carry.
        reference: what its claims are compared with.
        accept: where its claims may come from.
        now: the time of the appraisal; None for now.

    Raises:
        AttestationError: if it is of another kind, fails its appraisal, is not affirmed in all that its Verifier
            requires, or comes from a source that is not accepted.
    """
    if evidence.kind != reference.kind:
        raise AttestationError(
            f"{name}: expected evidence of kind {reference.kind}, as the reference values, found {evidence.kind[:40]!r}"
        )
    result = verifier(evidence.kind).appraise(
        evidence, binding=binding, reference=reference, now=now or datetime.now(UTC)
    )
    check_provenance(name, result.provenance, tuple(accept))
    if not result.affirmed:
        reason = Reference(values=reference, accept=frozenset(accept)).refusal(result)
        raise AttestationError(f"{name}: its evidence is not affirmed: {reason}; add the missing reference values")
    return result
