"""A session over a bundle: the private part in an enclave, the rest on the devices of the plan."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from siniantrust.bundle import Bundle, KeyStore, TrustedPart, load_bundle
from siniantrust.errors import PlanError, SinianError
from siniantrust.graph import Tensor
from siniantrust.odla import DeviceInfo, DeviceSpec
from siniantrust.planner import move_violations
from siniantrust.runtime._device_stage import DeviceStage
from siniantrust.runtime._holder import EnclaveHolder
from siniantrust.runtime._interface import Arrays, Interface, Results
from siniantrust.runtime._masked_stage import MaskedStage
from siniantrust.runtime._observe import Move, MoveLog, Observer, Observers
from siniantrust.runtime._requests import Requests
from siniantrust.runtime._run_through import run_through
from siniantrust.runtime._stages import EnclaveStage, Span, Stage, device_spec
from siniantrust.runtime._stream import stream_requests
from siniantrust.trust import EnclaveInfo


def open_session(
    path: Path,
    *,
    keystore: KeyStore | None = None,
    devices: Mapping[str, DeviceSpec] | None = None,
    observers: Sequence[Observer] = (),
) -> Session:
    """Check a bundle, launch and attest its enclave, release the keys to it, and open its devices.

    Args:
        path: the bundle's folder.
        keystore: the owner's keys; None for the default place.
        devices: other ways to open devices of the policy, by name: for example a server for ``cloud``. A device keeps
            the clearance that the policy gave to its name.
        observers: told of requests, calls, queues and moves.

    Raises:
        BundleError: if the bundle fails a check.
        TrustError: if the enclave cannot be launched, or its evidence or provenance is not accepted.
        DeviceError: if a device is missing, does not support its part, or ``devices`` names one that the policy has
            not.
    """
    keystore = keystore or KeyStore()
    bundle = load_bundle(path, keystore=keystore)
    return Session(bundle, keystore=keystore, devices=devices or {}, observers=observers)


class Session:
    """A running deployment. It is a context manager; its methods may be called from several threads.

    After an error that names a lost enclave or device, the next call launches or opens it again.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        keystore: KeyStore,
        devices: Mapping[str, DeviceSpec],
        observers: Sequence[Observer] = (),
    ) -> None:
        for name in devices:
            device_spec(bundle.plan.policy, name, devices)
        self.bundle = bundle
        self.inputs: tuple[Tensor, ...] = bundle.inputs
        self.outputs: tuple[Tensor, ...] = bundle.outputs
        self.interface = Interface(bundle.inputs, bundle.outputs, free_batch=bundle.batch_symbol is not None)
        self._is_closed = False
        self._moves = MoveLog()
        self._observer = Observers([self._moves, *observers])
        self._requests = Requests(self._observer)
        self._holder = EnclaveHolder(bundle, keystore)
        self.stages: tuple[Stage, ...] = tuple(self._stage(index, devices) for index in range(len(bundle.parts)))
        try:
            self._holder.info()  # launches it
            for stage in self.stages:
                if isinstance(stage, DeviceStage | MaskedStage):
                    stage.infos()
        except BaseException:
            self.close()
            raise

    def _stage(self, index: int, devices: Mapping[str, DeviceSpec]) -> Stage:
        part, plan = self.bundle.parts[index], self.bundle.plan
        if isinstance(part, TrustedPart) and part.masked is not None:
            return MaskedStage(part, part.masked, plan, self._holder, devices, self._observer)
        if isinstance(part, TrustedPart):
            return EnclaveStage(part, self._holder, self._observer)
        artifacts = self.bundle.artifacts.get(part.name, ())
        return DeviceStage(part, plan.parts[index], plan, devices, self._observer, artifacts)

    def _device_stages(self) -> tuple[DeviceStage, ...]:
        return tuple(stage for stage in self.stages if isinstance(stage, DeviceStage))

    def enclave_info(self) -> EnclaveInfo:
        """Describe the enclave: provider, provenance, protections."""
        self._check_open()
        return self._holder.info()

    def device_infos(self) -> tuple[DeviceInfo, ...]:
        """Describe the untrusted devices that parts, and layers under pads, run on now, in the plan's order."""
        self._check_open()
        stages = [stage for stage in self.stages if isinstance(stage, DeviceStage | MaskedStage)]
        return tuple({info.name: info for stage in stages for info in stage.infos()}.values())

    @property
    def masked(self) -> MaskedStage | None:
        """The part whose layers run under pads; None where the plan has none."""
        return next((stage for stage in self.stages if isinstance(stage, MaskedStage)), None)

    def placement(self) -> dict[str, tuple[str, ...]]:
        """Return the devices that each untrusted part runs on now."""
        return {stage.name: stage.devices for stage in self._device_stages()}

    @property
    def moves(self) -> tuple[Move, ...]:
        """Return the latest moves of parts between devices, the oldest first."""
        return tuple(self._moves.latest)

    def move(self, part: str, device: str, *, source: str | None = None) -> None:
        """Move an untrusted part to another device while the session serves.

        No request is lost: those on their way finish on the old device, later ones go to the new one.

        Args:
            part: the part's name in the plan.
            device: a device of the policy; it has to be cleared for all that the part reads and makes.
            source: which of several replicas moves; None where there is one.

        Raises:
            PlanError: if there is no such part or device, or the device's clearance does not suffice.
            DeviceError: if the device cannot be opened or refuses the part. The part stays where it was.
        """
        self._check_open()
        stage = next((stage for stage in self._device_stages() if stage.name == part), None)
        if stage is None:
            why = move_violations(self.bundle.plan, part, device)
            raise PlanError(f"move of {part!r} to {device!r}: refused: {why[0]}")
        stage.move(device, source=source)

    def run(self, inputs: Arrays) -> Results:
        """Run one request through all parts.

        Args:
            inputs: an array for each input of the model, with its dtype and shape; the batch size is free where the
                model leaves it free.

        Returns:
            The model's outputs by name.

        Raises:
            DataError: if the inputs do not fit, or are not finite.
            EnclaveLostError: if the enclave died.
            DeviceLostError: if a device is gone.
        """
        self._check_open()
        return run_through(inputs, self.interface, self.stages, self._requests)

    def stream(
        self, requests: Iterable[Arrays], *, on_span: Callable[[Span], None] | None = None
    ) -> Generator[Results, None, None]:
        """Run requests through a pipeline in which enclave and devices work at the same time; answers keep the order.

        A part with replicas works on as many requests at once. The arguments and errors are those of ``run``; the first
        error ends the stream, after the answers to the requests before it. A stream that is not read to its end holds
        its threads until it is closed or forgotten.

        Args:
            requests: the requests; read lazily, a few ahead of the answers.
            on_span: called when an item leaves a stage, in that stage's thread.
        """
        self._check_open()
        return stream_requests(requests, self.interface, self.stages, self._requests, on_span or (lambda _: None))

    def run_batched(self, inputs: Arrays, *, batch_items: int = 1) -> Results:
        """Split the inputs' first axis into batches, run them through the pipeline, and join the answers.

        Args:
            inputs: arrays with as many rows in each; a model with a fixed batch size takes batches of that size.
            batch_items: rows per request where the model leaves the batch size free.

        Raises:
            DataError: if the inputs do not fit, differ in length, or do not divide into the model's batches.
        """
        requests = self.interface.cut(inputs, batch_items=batch_items)
        return self.interface.join(list(self.stream(requests)))

    def close(self) -> None:
        """End the enclave and free the devices; calling it again does nothing.

        A request that is on its way in another thread fails; it opens nothing again.
        """
        self._is_closed = True
        with ExitStack() as stack:
            for stage in self.stages:
                if isinstance(stage, DeviceStage | MaskedStage):
                    stack.callback(stage.close)
            # Last in, first out: what waits for the enclave is woken before it is waited for.
            stack.callback(self._holder.close)

    def __enter__(self) -> Self:
        """Return the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""
        self.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise SinianError(f"session over {self.bundle.path}: it is closed; open the bundle again")
