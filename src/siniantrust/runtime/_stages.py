"""The stages of a session: what every stage is, and the trusted one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from siniantrust.bundle import TrustedPart
from siniantrust.errors import DeviceError
from siniantrust.odla import DeviceSpec
from siniantrust.planner import ENCLAVE, Policy
from siniantrust.runtime._holder import EnclaveHolder
from siniantrust.runtime._observe import Call, Observer


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
        with self._holder.use() as enclave:
            try:
                outputs = enclave.run(self.name, inputs)
            except BaseException as fault:
                watch.failed(fault)
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
