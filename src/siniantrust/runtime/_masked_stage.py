"""A trusted part whose layers run on devices under one-time pads: the enclave asks, this relays."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from siniantrust.bundle import MaskedPart, Quantised, TrustedPart
from siniantrust.errors import SinianError
from siniantrust.masking.exact import Pending, Relay, Status
from siniantrust.odla import DeviceInfo, DeviceSpec
from siniantrust.planner import ENCLAVE, Masking, Plan
from siniantrust.runtime._holder import EnclaveHolder
from siniantrust.runtime._observe import Observer, Stock
from siniantrust.runtime._padded_devices import PaddedDevices
from siniantrust.runtime._refill import Refill
from siniantrust.runtime._stages import Answer, Stopwatch, device_spec
from siniantrust.trust import Enclave

# While a device computes one request's exchange, the enclave works on another one.
_WIDTH = 2


@dataclass(eq=False)
class _Loaded:
    """The relay to the program in one enclave; what another one prepared is of no use to it."""

    enclave: Enclave
    relay: Relay


class MaskedStage:
    """A masked part. What it shows devices is uniform noise, and what they answer is checked in the enclave.

    Args:
        part: the part.
        masked: what is to be relayed for it.
        plan: the plan, with the devices under pads.
        holder: the enclave.
        devices: other ways to open devices, by name.
        observer: told of calls, of devices that are left, and of the stock of pads.
    """

    where = ENCLAVE
    width = _WIDTH

    def __init__(
        self,
        part: TrustedPart,
        masked: MaskedPart,
        plan: Plan,
        holder: EnclaveHolder,
        devices: Mapping[str, DeviceSpec],
        observer: Observer,
    ) -> None:
        assert plan.masking is not None  # noqa: S101 - a bundle's masked part has one, or did not load
        self.name = part.name
        self.inputs = tuple(tensor.name for tensor in part.inputs)
        self.masking: Masking = plan.masking
        self._policy = plan.policy.masking
        self._part = part
        self._masked = masked
        self._holder = holder
        self._observer = observer
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None
        self.device_s = 0.0
        self._devices = PaddedDevices(
            part.name,
            masked.exchanges,
            [device_spec(plan.policy, name, devices) for name in plan.masking.devices],
            home=ENCLAVE if self._policy.when_no_device == "compute" else None,
            timeout_s=plan.policy.serving.call_timeout_s,
            observer=observer,
        )
        self._refill = Refill(self._prepare, target=self._policy.stock, told=self._told)

    @property
    def quantised(self) -> Quantised:
        """What quantising the part cost, as measured at build."""
        return self._masked.quantised

    @property
    def quarantined(self) -> Mapping[str, str]:
        """Devices that answered wrongly, late or not at all, and why they get no more."""
        return dict(self._devices.quarantined)

    def infos(self) -> tuple[DeviceInfo, ...]:
        """Describe the device that computes under pads, opening it; from then on pads are prepared in idle time."""
        with self._using():
            return self._devices.open()

    def status(self) -> Status:
        """Ask the trusted side what it did so far."""
        with self._using() as relay:
            return relay.status()

    @property
    def stock_bytes(self) -> int:
        """Bytes of sealed corrections that lie here."""
        with self._using() as relay:
            return relay.kept_bytes

    def fill(self, timeout_s: float) -> int:
        """Wait until the stock of pads is full, at most so long; return the items in it."""
        return self._refill.fill(timeout_s)

    def run(
        self, inputs: Mapping[str, np.ndarray], *, request: int | None = None, ready_s: float | None = None
    ) -> Answer:
        """Run the part: in the enclave, and its padded layers on the devices.

        Raises:
            IntegrityError: if no device is left that answers rightly, and the enclave is not to compute.
            EnclaveLostError: if the enclave died; the next call launches another one.
            TrustError: if the stock of pads is dry and may not be waited for, or was tampered with.
        """
        watch = Stopwatch(self._observer, self.name, ENCLAVE, inputs, request, ready_s)
        items = max((len(array) for array in inputs.values() if array.ndim), default=1)
        with self._using() as relay:
            try:
                with self._refill.request(items):
                    outputs = self._answered(relay, inputs, request)
            except BaseException as fault:
                watch.failed(fault)
                raise
        return watch.answered(outputs)

    def close(self) -> None:
        """Free the devices and end the refill; calling it again does nothing."""
        self._refill.close()
        self._devices.close()

    def _answered(self, relay: Relay, inputs: Mapping[str, np.ndarray], request: int | None) -> dict[str, np.ndarray]:
        state = relay.begin(inputs)
        while isinstance(state, Pending):
            device = self._devices.first()
            if device is None:
                if self._policy.when_no_device == "refuse":
                    relay.drop(state)
                    raise self._devices.none_left(state.exchange)
                state = relay.compute(state)
                continue
            try:
                answers = self._computed(device, state, request)
            except SinianError as fault:
                self._devices.quarantine(device, str(fault))
                continue
            except BaseException:
                relay.drop(state)
                raise
            state = relay.accept(state, answers)
            if isinstance(state, Pending) and state.refused is not None:
                self._devices.quarantine(device, state.refused)
        return state

    def _computed(self, device: str, pending: Pending, request: int | None) -> dict[str, np.ndarray]:
        part = self._masked.exchanges[pending.exchange].name
        watch = Stopwatch(self._observer, part, device, pending.masked, request, None)
        try:
            answers = self._devices.run(device, pending.exchange, pending.masked)
        except BaseException as fault:
            watch.failed(fault)
            raise
        call = watch.answered(answers).call
        with self._lock:
            self.device_s += call.end_s - call.start_s
        return answers

    @contextmanager
    def _using(self) -> Iterator[Relay]:
        """Yield the relay to the live enclave's program; of another enclave nothing is kept."""
        with self._holder.use() as enclave:
            with self._lock:
                if fresh := self._loaded is None or self._loaded.enclave is not enclave:
                    self._loaded = _Loaded(
                        enclave, Relay(lambda inputs: enclave.run(self.name, inputs), self._masked.outlines)
                    )
                relay = self._loaded.relay
            if fresh:
                self._refill.emptied()
            yield relay

    def _prepare(self) -> Status:
        """Prepare one item, without keeping an enclave from its limits."""
        with self._lock:
            loaded = self._loaded
        if loaded is None or not loaded.enclave.alive:
            raise SinianError("pads: no enclave is there yet")
        return loaded.relay.prepare(1)

    def _told(self, status: Status, took_s: float) -> None:
        meter = status.meter
        self._observer.on_stock(
            Stock(
                part=self.name,
                level=status.stock_level,
                prepared=meter.prepared,
                prepare_s=meter.prepare_s,
                took_s=took_s,
                ran_dry=meter.ran_dry,
                refused=meter.refused,
            )
        )
