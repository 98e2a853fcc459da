"""The verifiers by the kind of evidence that they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation._roles import Verifier

# Kind to the class (module:name) that appraises it.
VERIFIERS: Mapping[str, str] = {
    "simulated": "siniantrust.trust.attestation._simulated:SimulatedVerifier",
}


def verifier_for(kind: str) -> Verifier:
    """Return the verifier of a kind of evidence.

    Raises:
        AttestationError: if there is none.
    """
    if kind not in VERIFIERS:
        known = ", ".join(sorted(VERIFIERS))
        raise AttestationError(f"evidence of kind {kind[:40]!r}: no verifier reads it; there are those for: {known}")
    module, _, name = VERIFIERS[kind].partition(":")
    make: Callable[[], Verifier] = getattr(import_module(module), name)
    return make()
