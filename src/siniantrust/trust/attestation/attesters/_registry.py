"""The attesters by name, and the opening of one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation._roles import Attester

# Name to the class or function (module:name) that opens it with its default paths.
ATTESTERS: Mapping[str, str] = {
    "configfs-tsm": "siniantrust.trust.attestation.attesters.configfs_tsm:ConfigfsTsmAttester",
    "gramine": "siniantrust.trust.attestation.attesters.gramine:GramineAttester",
    "simulated": "siniantrust.trust.attestation.attesters.simulated:SimulatedAttester",
    "tpm2": "siniantrust.trust.attestation.attesters.tpm2:open_tpm2",
}
# Those that may be told where their platform is, as NAME:WHERE.
_PLACED = ("tpm2",)


def open_attester(name: str) -> Attester:
    """Return the attester ``name`` of this machine; ``tpm2:swtpm:HOST:PORT`` is that of an emulated TPM.

    Raises:
        AttestationError: if there is none of that name, or the machine lacks what it needs.
    """
    known, colon, where = name.partition(":")
    if known not in ATTESTERS or (colon and known not in _PLACED):
        raise AttestationError(f"attester {name[:40]!r} is unknown; there are: {', '.join(sorted(ATTESTERS))}")
    module, _, attribute = ATTESTERS[known].partition(":")
    make: Callable[..., Attester] = getattr(import_module(module), attribute)
    return make(where) if colon else make()
