"""What every enclave provider answers, and what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from siniantrust.errors import EnclaveError
from siniantrust.trust._evidence import Evidence
from siniantrust.trust._labels import Provenance

if TYPE_CHECKING:  # the process enclave has this module inside, but not those
    from siniantrust.trust._sealed_data import SealedData
    from siniantrust.trust.attestation import ReferenceValues


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveSpec:
    """Which enclave to launch, and what to accept of it.

    Attributes:
        provider: name of a provider in the registry.
        memory_bytes: limit of everything that the enclave's memory holds: program, weights and tensors.
        threads: threads that a part computes with; the enclave is pinned to as many cores.
        accept: where the enclave's claims may come from; anything else is refused before a key is released.
        allow_missing: names of protections that the enclave may do without.
        address: HOST:PORT of an enclave that runs elsewhere, for the providers that connect to one.
        reference: what the evidence of such an enclave is compared with; without it, none is accepted.
        folder: of a signed manifest from which ``gramine`` starts the enclave; None where it runs already.

    Raises:
        EnclaveError: if a number is out of range.
    """

    memory_bytes: int
    provider: str = "process"
    threads: int = 1
    accept: tuple[Provenance, ...] = (Provenance.HARDWARE,)
    allow_missing: tuple[str, ...] = ()
    address: str | None = None
    reference: ReferenceValues | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that no enclave could have."""
        if self.memory_bytes <= 0:
            raise EnclaveError(f"enclave: memory_bytes must be positive, found {self.memory_bytes}")
        if self.threads < 1:
            raise EnclaveError(f"enclave: threads must be at least 1, found {self.threads}")


@dataclass(frozen=True, slots=True)
class EnclaveInfo:
    """What an enclave is. ``protections`` maps each protection's name to ``active`` or ``missing: reason``.

    ``measurement`` is what its evidence says at launch, as the Verifier compared it.
    """

    provider: str
    provenance: Provenance
    protections: Mapping[str, str]
    memory_limit_bytes: int
    pid: int | None
    threads: int
    measurement: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveLimits:
    """What is enforced on an enclave and its clients; None where nothing enforces a limit.

    Attributes:
        memory_bytes: program, weights and tensors at once.
        message_bytes: names, dtypes and shapes of one request; None where requests have one size.
        tensors_bytes: tensors of one request or answer, with what encryption adds to them.
        sealed_bytes: data that are sealed at once; 0 where the platform has no sealing.
        parts: parts loaded at once in a session.
        sessions: clients at the same time.
        requests_per_s: requests of one client, in the long run.
        idle_s: seconds that a client may be silent.
        lifetime_s: seconds that a session lasts.
    """

    memory_bytes: int | None
    message_bytes: int | None
    tensors_bytes: int
    sealed_bytes: int
    parts: int
    sessions: int
    requests_per_s: float | None = None
    idle_s: float | None = None
    lifetime_s: float | None = None


@runtime_checkable
class Enclave(Protocol):
    """A launched and attested enclave: the holder of keys, weights and private inputs.

    All methods may be called from several threads. A call after ``close`` raises EnclaveError; a call during which
    the enclave dies raises EnclaveLostError.
    """

    @property
    def provenance(self) -> Provenance:
        """Where the enclave's claims come from."""

    @property
    def alive(self) -> bool:
        """Whether the enclave still runs and accepts calls."""

    def info(self) -> EnclaveInfo:
        """Describe the enclave."""

    def limits(self) -> EnclaveLimits:
        """Return the limits that are enforced on the enclave and on its clients."""

    def evidence(self, nonce: bytes) -> Evidence:
        """Return fresh evidence, bound to ``nonce`` (32 bytes) and to the keys of this session."""

    def load(self, name: str, skeleton: bytes, sealed: bytes, key: bytes, *, context: bytes) -> None:
        """Send a sealed part and the key to it; the enclave itself opens the seal.

        Raises:
            TrustError: if ``key`` or ``context`` is not the one it was sealed with, or a byte was changed.
            EnclaveError: if the enclave cannot run the part.
        """

    def run(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the part loaded as ``name``. The arrays returned are the caller's own.

        Raises:
            DataError: if the inputs do not fit the part.
            ChannelError: if a frame was tampered with, replayed or reordered; the enclave is closed then.
            EnclaveError: if no such part is loaded or it fails.
        """

    def seal(self, data: bytes, *, context: bytes) -> SealedData:
        """Seal data, so that only an enclave of the same measurement on the same platform gives them back.

        They are worth what the enclave's provenance is: a ``simulated`` seal keeps nothing from the host.

        Args:
            data: at most ``limits().sealed_bytes``.
            context: what they are sealed for; ``unseal`` needs the same.

        Raises:
            EnclaveError: if the platform has no sealing, or the data are too many.
        """

    def unseal(self, sealed: SealedData, *, context: bytes) -> bytes:
        """Return what ``seal`` sealed.

        Raises:
            AttestationError: if the policy does not accept where they were sealed.
            TrustError: if another enclave or platform sealed them, for another context, or a byte was changed.
            EnclaveError: if the platform has no sealing.
        """

    def close(self) -> None:
        """End the enclave, first gently, then by force; calling it again does nothing."""


@runtime_checkable
class BrokeredEnclave(Enclave, Protocol):
    """An enclave that can fetch keys from a key broker by itself, so that its client never holds them."""

    def load_brokered(self, name: str, skeleton: bytes, sealed: bytes, key_id: str, *, context: bytes) -> None:
        """Send a sealed part; the enclave asks its key broker for the key ``key_id`` and opens the seal.

        Raises:
            TrustError: if the broker refuses, or the seal does not open.
            EnclaveError: if the enclave has no broker, or cannot run the part.
        """


@dataclass(frozen=True, slots=True)
class CrossingCost:
    """What it costs to cross into an enclave and back, beyond the computation itself.

    Crossing with ``a`` bytes in and ``b`` bytes out takes ``base_s + a * seconds_per_byte_in + b *
    seconds_per_byte_out``. ``basis`` says how that was measured. ``slowdown`` is how many times as long as in this
    process the enclave takes to compute.
    """

    base_s: float
    seconds_per_byte_in: float
    seconds_per_byte_out: float
    basis: str
    slowdown: float = 1.0

    def latency_s(self, bytes_in: int, bytes_out: int) -> float:
        """Return the predicted seconds for one crossing."""
        return self.base_s + bytes_in * self.seconds_per_byte_in + bytes_out * self.seconds_per_byte_out


@dataclass(frozen=True, slots=True)
class Check:
    """One finding about this host. ``consequence`` says what follows when ``ok`` is false."""

    name: str
    ok: bool
    detail: str
    consequence: str
