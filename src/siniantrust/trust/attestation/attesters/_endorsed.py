"""An attester whose evidence brings endorsements along that its platform does not hand out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from siniantrust.trust._sealing import Sealing, sealing_of
from siniantrust.trust.attestation._roles import Attester, EvidenceBundle


class EndorsedAttester:
    """Adds endorsements, such as Intel's ``collateral``, to the evidence of another attester.

    Whoever adds them need not be trusted: the Verifier checks them.
    """

    def __init__(self, attester: Attester, endorsements: Mapping[str, bytes]) -> None:
        self.kind = attester.kind
        self._attester = attester
        self._endorsements = dict(endorsements)

    def evidence(self, binding: bytes) -> EvidenceBundle:
        """Return the other attester's evidence with the endorsements; the platform's own come first."""
        evidence = self._attester.evidence(binding)
        return replace(evidence, endorsements={**self._endorsements, **evidence.endorsements})

    def sealing(self) -> Sealing:
        """Return the sealing of the other attester's platform; see ``SealingPlatform``.

        Raises:
            EnclaveError: if it has none.
        """
        return sealing_of(self._attester)
