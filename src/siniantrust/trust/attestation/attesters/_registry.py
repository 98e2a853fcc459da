"""The attesters by name, and the opening of one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation._roles import Attester

# Name to the class (module:name) that makes evidence with its default paths.
ATTESTERS: Mapping[str, str] = {
    "configfs-tsm": "siniantrust.trust.attestation.attesters.configfs_tsm:ConfigfsTsmAttester",
    "gramine": "siniantrust.trust.attestation.attesters.gramine:GramineAttester",
    "simulated": "siniantrust.trust.attestation.attesters.simulated:SimulatedAttester",
}


def open_attester(name: str) -> Attester:
    """Return the attester ``name`` of this machine.

    Raises:
        AttestationError: if there is none of that name, or the machine lacks what it needs.
    """
    if name not in ATTESTERS:
        raise AttestationError(f"attester {name[:40]!r} is unknown; there are: {', '.join(sorted(ATTESTERS))}")
    module, _, attribute = ATTESTERS[name].partition(":")
    make: Callable[[], Attester] = getattr(import_module(module), attribute)
    return make()
