"""The stages of a session: what every stage is, and the trusted one in its enclave."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from siniantrust.bundle import Bundle, KeyStore, TrustedPart, admit
from siniantrust.errors import DeviceError, EnclaveError, SinianError
from siniantrust.odla import DeviceSpec
from siniantrust.planner import ENCLAVE, Policy
from siniantrust.runtime._observe import Call, Observer
from siniantrust.trust import BrokeredEnclave, Enclave, EnclaveInfo, EnclaveSpec, launch
from siniantrust.trust.attestation import reference_from_table


@dataclass(frozen=True, slots=True)
class Span:
    """When one item was in one stage, and on which device; seconds on the clock of ``time.perf_counter``.

    From ``ready_s`` to ``start_s`` the item waited for the stage.
    """

    stage: str
    item: int
    start_s: float
    end_s: float
    device: str = ""
    ready_s: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A part's outputs, and the call that made them."""

    outputs: dict[str, np.ndarray]
    call: Call


class Stage(Protocol):
    """One part where it runs. ``inputs`` are the only values that it is ever handed.

    ``where`` is the enclave or the device, ``width`` how many requests it works on at the same time.
    """

    name: str
    inputs: tuple[str, ...]
    width: int

    @property
    def where(self) -> str:
        """Return where the part runs now."""

    def run(
        self, inputs: Mapping[str, np.ndarray], *, request: int | None = None, ready_s: float | None = None
    ) -> Answer:
        """Compute the part's outputs for a request whose values were there at ``ready_s`` (None: now)."""


class Stopwatch:
    """Times one call of a part and tells the observer of it, whatever its end."""

    def __init__(
        self,
        observer: Observer,
        part: str,
        device: str,
        inputs: Mapping[str, np.ndarray],
        request: int | None,
        ready_s: float | None,
    ) -> None:
        self._observer = observer
        self._about = (request, part, device)
        self._sent_bytes = sum(array.nbytes for array in inputs.values())
        self._start_s = time.perf_counter()
        self._ready_s = self._start_s if ready_s is None else ready_s

    def answered(self, outputs: dict[str, np.ndarray]) -> Answer:
        """Note that the call was answered."""
        return Answer(outputs, self._ended(sum(array.nbytes for array in outputs.values()), None))

    def failed(self, fault: BaseException) -> None:
        """Note that the call failed."""
        self._ended(0, type(fault).__name__)

    def _ended(self, received_bytes: int, error: str | None) -> Call:
        end_s = time.perf_counter()
        call = Call(*self._about, self._ready_s, self._start_s, end_s, self._sent_bytes, received_bytes, error)
        self._observer.on_call(call)
        return call


class EnclaveHolder:
    """The session's enclave: launched, attested and loaded when first needed, and again after it was lost."""

    def __init__(self, bundle: Bundle, keystore: KeyStore) -> None:
        self._spec = enclave_spec(bundle.plan.policy)
        self._bundle = bundle
        self._keystore = keystore
        self._lock = threading.Lock()
        self._enclave: Enclave | None = None
        self._is_closed = False

    def get(self) -> Enclave:
        """Return the live enclave, launching one if there is none.

        Raises:
            TrustError: if it cannot be launched, does not attest, or refuses a part; or a newer bundle was
                opened before.
            SinianError: if the session was closed: a request that was on its way then launches nothing.
        """
        with self._lock:
            if self._is_closed:
                raise SinianError("enclave: its session is closed; open the bundle again")
            if self._enclave is None:
                self._enclave = self._launch()
            return self._enclave

    def info(self) -> EnclaveInfo:
        """Describe the enclave."""
        return self.get().info()

    def forget(self, lost: Enclave) -> None:
        """Drop an enclave that failed, so that the next call launches another one."""
        with self._lock:
            if self._enclave is lost:
                self._enclave = None
        lost.close()

    def close(self) -> None:
        """End the enclave for good; calling it again does nothing."""
        with self._lock:
            self._is_closed = True
            enclave, self._enclave = self._enclave, None
        if enclave is not None:
            enclave.close()

    def _launch(self) -> Enclave:
        enclave = launch(self._spec)
        try:
            parts = [part for part in self._bundle.parts if isinstance(part, TrustedPart)]
            if self._bundle.plan.policy.enclave.keys == "broker":
                _load_brokered(enclave, parts, self._bundle.id)
            else:
                # Keys leave the key store only here: the enclave has attested, and older bundles are refused for good.
                manifest, tpm = self._bundle.manifest, self._bundle.plan.policy.enclave.rollback_tpm
                admit(self._keystore, lineage=manifest.lineage, version=manifest.version, tpm=tpm)
                key = self._keystore.weight_key(self._bundle.id)
                for part in parts:
                    enclave.load(part.name, part.skeleton, part.sealed, key, context=part.context)
        except BaseException:
            enclave.close()
            raise
        return enclave


def _load_brokered(enclave: Enclave, parts: Sequence[TrustedPart], bundle_id: str) -> None:
    if not isinstance(enclave, BrokeredEnclave):
        raise EnclaveError(
            f"{enclave.info().provider} enclave: it has no key broker; write in the policy: "
            '[enclave] keys = "keystore", or another provider'
        )
    for part in parts:
        enclave.load_brokered(part.name, part.skeleton, part.sealed, bundle_id, context=part.context)


class EnclaveStage:
    """A trusted part."""

    where = ENCLAVE
    width = 1

    def __init__(self, part: TrustedPart, holder: EnclaveHolder, observer: Observer) -> None:
        self.name = part.name
        self.inputs = tuple(tensor.name for tensor in part.inputs)
        self._holder = holder
        self._observer = observer

    def run(
        self, inputs: Mapping[str, np.ndarray], *, request: int | None = None, ready_s: float | None = None
    ) -> Answer:
        """Run the part in the enclave.

        Raises:
            EnclaveLostError: if the enclave died; the next call launches another one.
            TrustError: if a frame does not authenticate; the next call launches another one.
        """
        watch = Stopwatch(self._observer, self.name, ENCLAVE, inputs, request, ready_s)
        enclave = self._holder.get()
        try:
            outputs = enclave.run(self.name, inputs)
        except BaseException as fault:
            watch.failed(fault)
            # Whatever ended it, a call that was interrupted included.
            if not enclave.alive:
                self._holder.forget(enclave)
            raise
        return watch.answered(outputs)


def device_spec(policy: Policy, name: str, overrides: Mapping[str, DeviceSpec]) -> DeviceSpec:
    """Return how to open the policy's device ``name``: as the caller says, else as the policy does.

    Raises:
        DeviceError: if ``overrides`` names a device that the policy does not have.
    """
    entries = {device.name: device for device in policy.device}
    for other in overrides:
        if other not in entries:
            raise DeviceError(f"device {other!r}: the policy has no such device; it has {', '.join(sorted(entries))}")
    if name in overrides:
        return replace(overrides[name], name=name)
    return DeviceSpec(name=name, backend=entries[name].backend, options=dict(entries[name].options))


def enclave_spec(policy: Policy) -> EnclaveSpec:
    """Return which enclave the policy asks for."""
    wanted = policy.enclave
    return EnclaveSpec(
        provider=wanted.provider,
        memory_bytes=wanted.memory_bytes,
        threads=wanted.threads,
        accept=wanted.accept,
        allow_missing=wanted.allow_missing,
        address=wanted.address,
        folder=None if wanted.folder is None else Path(wanted.folder),
        reference=None
        if wanted.reference is None
        else reference_from_table(wanted.reference.model_dump(), origin="of the policy"),
    )
