"""The stages of a session: each part of the plan on the device that it was planned for, and nowhere else."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from siniantrust.bundle import Bundle, KeyStore, TrustedPart
from siniantrust.errors import DeviceError, DeviceLostError, SinianError
from siniantrust.graph import Part
from siniantrust.odla import Artifact, Device, DeviceInfo, DeviceSpec, Executable, open_part
from siniantrust.planner import Policy
from siniantrust.trust import Enclave, EnclaveInfo, EnclaveSpec, launch


@dataclass(frozen=True, slots=True)
class Span:
    """When one item was in one stage; seconds on the clock of ``time.perf_counter``."""

    stage: str
    item: int
    start_s: float
    end_s: float


class Stage(Protocol):
    """One part on its device. ``inputs`` are the only values that it is ever handed."""

    name: str
    where: str
    inputs: tuple[str, ...]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the part's outputs."""


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
            TrustError: if it cannot be launched, does not attest, or refuses a part.
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
            # Keys leave the key store only here: the enclave has attested.
            key = self._keystore.weight_key(self._bundle.id)
            for part in self._bundle.parts:
                if isinstance(part, TrustedPart):
                    enclave.load(part.name, part.skeleton, part.sealed, key, context=part.context)
        except BaseException:
            enclave.close()
            raise
        return enclave


class EnclaveStage:
    """A trusted part."""

    where = "enclave"

    def __init__(self, part: TrustedPart, holder: EnclaveHolder) -> None:
        self.name = part.name
        self.inputs = tuple(tensor.name for tensor in part.inputs)
        self._holder = holder

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the part in the enclave.

        Raises:
            EnclaveLostError: if the enclave died; the next call launches another one.
            TrustError: if a frame does not authenticate; the next call launches another one.
        """
        enclave = self._holder.get()
        try:
            return enclave.run(self.name, inputs)
        except BaseException:
            # Whatever ended it, a call that was interrupted included.
            if not enclave.alive:
                self._holder.forget(enclave)
            raise


class DeviceStage:
    """An untrusted part."""

    def __init__(self, part: Part, spec: DeviceSpec, artifacts: Sequence[Artifact] = ()) -> None:
        self.name = part.name
        self.where = spec.name
        self.inputs = tuple(tensor.name for tensor in part.inputs)
        self._part = part
        self._spec = spec
        self._artifacts = tuple(artifacts)
        self._lock = threading.Lock()
        self._open: tuple[Device, Executable] | None = None
        self._is_closed = False

    def _opened(self) -> tuple[Device, Executable]:
        with self._lock:
            if self._is_closed:
                raise SinianError(f"device {self.where!r}: its session is closed; open the bundle again")
            if self._open is None:
                self._open = open_part(self._spec, self._part, artifacts=self._artifacts)
            return self._open

    def info(self) -> DeviceInfo:
        """Describe the device, opening it if it is not open."""
        return self._opened()[0].info()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the part on the device.

        Raises:
            DeviceLostError: if the device is gone; the next call opens it again.
            DeviceError: if it refuses.
        """
        opened = self._opened()
        try:
            return opened[1].run(inputs)
        except DeviceLostError:
            self._forget(opened)
            raise

    def _forget(self, lost: tuple[Device, Executable]) -> None:
        """Close what failed. Another call may have opened the device anew meanwhile: that stays."""
        with self._lock:
            if self._open is lost:
                self._open = None
        _free(lost)

    def close(self) -> None:
        """Free the device for good; calling it again does nothing."""
        with self._lock:
            self._is_closed = True
            opened, self._open = self._open, None
        if opened is not None:
            _free(opened)


def _free(opened: tuple[Device, Executable]) -> None:
    device, executable = opened
    try:
        executable.close()
    finally:
        device.close()


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
    )
