"""Claims held against reference values: what differs is an error, what has no reference value is not affirmed."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation._result import Tier
from siniantrust.trust.attestation._roles import ReferenceValues

# Claims that list several things, separated by commas, or none.
_LISTS = frozenset({"advisory-ids"})


def check_binding(what: str, found: bytes, binding: bytes) -> None:
    """Refuse evidence that carries something else than ``binding``; ``what`` names it.

    Raises:
        AttestationError: as said.
    """
    if not hmac.compare_digest(found, binding):
        raise AttestationError(f"{what}: it is not bound to our nonce and key; it may be a replay, ask for it again")


class Comparison:
    """What of some evidence's authentic claims the reference values match.

    A claim that lists several things (``advisory-ids``) is matched if every one of them is accepted.

    Args:
        kind: the kind of the evidence.
        claims: what it says, by name.
        reference: what the Relying Party accepts.

    Raises:
        AttestationError: if the reference values are for another kind, name a claim that this evidence does not carry
            (a misspelt name would else be a check that is never made), or contradict a claim.
    """

    def __init__(self, kind: str, claims: Mapping[str, str], reference: ReferenceValues) -> None:
        if reference.kind != kind:
            raise AttestationError(f"{kind} evidence: the reference values are for {reference.kind!r}, not for {kind}")
        named = {*reference.accepted, *reference.at_least}
        if unknown := sorted(named - claims.keys()):
            raise AttestationError(
                f"{kind} evidence: the reference values name {unknown[0]!r}, which this evidence does not carry; "
                f"it carries: {', '.join(sorted(claims))}"
            )
        for name, accepted in reference.accepted.items():
            found = {entry for entry in claims[name].split(",") if entry} if name in _LISTS else {claims[name]}
            if not found <= accepted:
                expected = " or ".join(sorted(accepted)) or "nothing"
                raise AttestationError(f"{kind} evidence: {name}: expected {expected}, found {claims[name]!r}")
        for name, lowest in reference.at_least.items():
            if not claims[name].isdecimal():
                raise AttestationError(
                    f"{kind} evidence: {name}: {claims[name]!r} is no number to hold against at_least"
                )
            if int(claims[name]) < lowest:
                raise AttestationError(
                    f"{kind} evidence: {name}: expected at least {lowest}, found {claims[name]}; update that machine"
                )
        self._matched = frozenset(named)

    def tier(self, *alternatives: tuple[str, ...]) -> Tier:
        """Return ``AFFIRMING`` if all claims of one of the alternatives were matched, else ``NONE``."""
        return Tier.AFFIRMING if any(self._matched.issuperset(group) for group in alternatives) else Tier.NONE

    def matched(self, name: str) -> bool:
        """Return whether a reference value speaks of this claim; then it accepts it."""
        return name in self._matched
