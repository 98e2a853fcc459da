"""The enclave providers by name, and the launch of one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from siniantrust.errors import EnclaveError
from siniantrust.trust._evidence import check_provenance
from siniantrust.trust._labels import Provenance
from siniantrust.trust._types import Enclave, EnclaveSpec

# Name to where its claims come from (None: wherever its evidence says) and the class (module:name) that launches it.
PROVIDERS: Mapping[str, tuple[Provenance | None, str]] = {
    "cvm": (Provenance.HARDWARE, "siniantrust.trust.cvm:CvmEnclave"),
    "gramine": (Provenance.HARDWARE, "siniantrust.trust.gramine._provider:GramineEnclave"),
    "process": (Provenance.SIMULATED, "siniantrust.trust.process._host:ProcessEnclave"),
    "service": (None, "siniantrust.trust.service:ServiceEnclave"),
}


def launch(spec: EnclaveSpec) -> Enclave:
    """Launch, attest and connect an enclave; it holds no key or weight before its evidence was appraised.

    The caller is the Relying Party of RFC 9334. An enclave whose claims are not from a source in ``spec.accept`` is
    refused: before it is started where its provider can have one source only, else as soon as its evidence is there.

    Raises:
        EnclaveError: if the provider is unknown, does not start, or lacks a protection that it may not lack.
        AttestationError: if its provenance is not accepted or its evidence does not pass.
    """
    if spec.provider not in PROVIDERS:
        raise EnclaveError(f"enclave provider '{spec.provider}' is unknown; there are: {', '.join(sorted(PROVIDERS))}")
    provenance, path = PROVIDERS[spec.provider]
    if provenance is not None:
        check_provenance(spec.provider, provenance, spec.accept)
    module, _, name = path.partition(":")
    provider: Callable[[EnclaveSpec], Enclave] = getattr(import_module(module), name)
    return provider(spec)
