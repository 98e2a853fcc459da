"""The enclave providers by name, what each can do, and the launch of one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import onnx

from siniantrust import lowering
from siniantrust.errors import EnclaveError
from siniantrust.graph import Part, feed_noise, noise_inputs, unfed_noise
from siniantrust.trust._evidence import check_provenance
from siniantrust.trust._labels import Provenance
from siniantrust.trust._take_out import take_out
from siniantrust.trust._types import Enclave, EnclaveSpec


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider of enclaves.

    Attributes:
        provenance: where its claims come from; None where its evidence says.
        launcher: the class (module:name) that launches one.
        memory_limit_bytes: the most that an enclave's memory limit may be; None where only the host sets a bound.
        lowers_to_c: whether parts are lowered to C, so that it runs only what can be lowered.
        setup: the function (module:name) that sets it up on this machine; None where nothing is to be set up.
    """

    provenance: Provenance | None
    launcher: str
    memory_limit_bytes: int | None = None
    lowers_to_c: bool = False
    setup: str | None = None


PROVIDERS: Mapping[str, Provider] = {
    "cvm": Provider(Provenance.HARDWARE, "siniantrust.trust.cvm:CvmEnclave"),
    "gramine": Provider(Provenance.HARDWARE, "siniantrust.trust.gramine._provider:GramineEnclave"),
    "process": Provider(Provenance.SIMULATED, "siniantrust.trust.process._host:ProcessEnclave"),
    "optee": Provider(
        Provenance.EMULATED,
        "siniantrust.trust.optee._host:OpteeEnclave",
        memory_limit_bytes=10 << 20,
        lowers_to_c=True,
        setup="siniantrust.trust.optee._setup:set_up",
    ),
    "service": Provider(None, "siniantrust.trust.service:ServiceEnclave"),
}


def launch(spec: EnclaveSpec) -> Enclave:
    """Launch, attest and connect an enclave; it holds no key or weight before its evidence was appraised.

    The caller is the Relying Party of RFC 9334. An enclave that cannot have the memory of ``spec`` is refused before it
    is started. One whose claims are not from a source in ``spec.accept`` is refused too: before it is started where its
    provider can have one source only, else as soon as its evidence is there.

    Raises:
        EnclaveError: if the provider is unknown, does not start, or lacks memory or a protection that it may not lack.
        AttestationError: if its provenance is not accepted or its evidence does not pass.
    """
    provider = _find(spec.provider)
    if provider.provenance is not None:
        check_provenance(spec.provider, provider.provenance, spec.accept)
    limit = provider.memory_limit_bytes
    if limit is not None and spec.memory_bytes > limit:
        raise EnclaveError(
            f"enclave '{spec.provider}': asked for {spec.memory_bytes:,} bytes of memory, it has {limit:,}; "
            f"write: [enclave] memory_bytes = {limit}"
        )
    launcher: Callable[[EnclaveSpec], Enclave] = _named(provider.launcher)
    return launcher(spec)


def unsupported_nodes(provider: str, part: Part) -> dict[str, str]:
    """Return why enclaves of ``provider`` cannot run nodes of ``part`` once it is sealed, by the nodes' names.

    Raises:
        EnclaveError: if the provider is unknown.
        ModelError: if the part's inputs or outputs are such that nothing in it can be run there.
    """
    unfed = unfed_noise(part.proto)
    if unfed or not _find(provider).lowers_to_c:
        return unfed
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(part.proto)
    feed_noise(skeleton, origin=f"part '{part.name}'")
    other = {each.name: each.dtype for each in noise_inputs(skeleton) if each.dtype != "float32"}
    undrawn = {
        node.name: f"it draws {other[name]}, a trusted application draws float32"
        for node in skeleton.graph.node
        for name in node.input
        if name in other
    }
    take_out(skeleton)
    return undrawn | lowering.unsupported(skeleton, name=part.name)


def runs_prelude(provider: str) -> bool:
    """Say whether enclaves of ``provider`` run a prelude when they draw noise; others do its work in the part.

    Raises:
        EnclaveError: if the provider is unknown.
    """
    return not _find(provider).lowers_to_c


def set_up(provider: str, tell: Callable[[str], None]) -> None:
    """Bring to this machine what ``provider`` needs; ``tell`` gets a line for every step.

    Raises:
        EnclaveError: if the provider is unknown or needs no setup, or a step fails.
    """
    path = _find(provider).setup
    if path is None:
        able = ", ".join(sorted(name for name, each in PROVIDERS.items() if each.setup is not None))
        raise EnclaveError(f"enclave provider '{provider}' needs no setup; those that do: {able}")
    _named(path)(tell)


def _find(name: str) -> Provider:
    if name not in PROVIDERS:
        raise EnclaveError(f"enclave provider '{name}' is unknown; there are: {', '.join(sorted(PROVIDERS))}")
    return PROVIDERS[name]


def _named(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
