"""A session over a bundle: the private part in an enclave, the rest on the devices of the plan."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from siniantrust.bundle import Bundle, KeyStore, TrustedPart, load_bundle
from siniantrust.errors import DeviceError, SinianError
from siniantrust.graph import Tensor
from siniantrust.odla import DeviceInfo, DeviceSpec
from siniantrust.runtime._interface import Arrays, Interface, Results
from siniantrust.runtime._pipeline import run_pipeline
from siniantrust.runtime._stages import DeviceStage, EnclaveHolder, EnclaveStage, Span, Stage, device_spec
from siniantrust.trust import EnclaveInfo


def open_session(
    path: Path, *, keystore: KeyStore | None = None, devices: Mapping[str, DeviceSpec] | None = None
) -> Session:
    """Check a bundle, launch and attest its enclave, release the keys to it, and open its devices.

    Args:
        path: the bundle's folder.
        keystore: the owner's keys; None for the default place.
        devices: other ways to open devices of the plan, by name: for example a server for ``cloud``. A device keeps
            the clearance that the policy gave to its name.

    Raises:
        BundleError: if the bundle fails a check.
        TrustError: if the enclave cannot be launched, or its evidence or provenance is not accepted.
        DeviceError: if a device is missing, does not support its part, or ``devices`` names one that the plan has not.
    """
    keystore = keystore or KeyStore()
    return Session(load_bundle(path, keystore=keystore), keystore=keystore, devices=devices or {})


class Session:
    """A running deployment. It is a context manager; its methods may be called from several threads.

    After an error that names a lost enclave or device, the next call launches or opens it again.
    """

    def __init__(self, bundle: Bundle, *, keystore: KeyStore, devices: Mapping[str, DeviceSpec]) -> None:
        planned = {part.device for part in bundle.plan.parts if not part.trusted}
        for name in devices:
            if name not in planned:
                known = ", ".join(sorted(planned)) or "none but the enclave"
                raise DeviceError(f"device {name!r}: the plan has no such device; it has {known}")
        self.bundle = bundle
        self.inputs: tuple[Tensor, ...] = bundle.inputs
        self.outputs: tuple[Tensor, ...] = bundle.outputs
        self.interface = Interface(bundle.inputs, bundle.outputs, free_batch=bundle.batch_symbol is not None)
        self._is_closed = False
        self._holder = EnclaveHolder(bundle, keystore)
        self.stages: tuple[Stage, ...] = tuple(self._stage(index, devices) for index in range(len(bundle.parts)))
        try:
            self._holder.get()
            for stage in self.stages:
                if isinstance(stage, DeviceStage):
                    stage.info()
        except BaseException:
            self.close()
            raise

    def _stage(self, index: int, devices: Mapping[str, DeviceSpec]) -> Stage:
        part, planned = self.bundle.parts[index], self.bundle.plan.parts[index]
        if isinstance(part, TrustedPart):
            return EnclaveStage(part, self._holder)
        spec = device_spec(self.bundle.plan.policy, planned.device, devices)
        return DeviceStage(part, spec, self.bundle.artifacts.get(part.name, ()))

    def enclave_info(self) -> EnclaveInfo:
        """Describe the enclave: provider, provenance, protections."""
        self._check_open()
        return self._holder.info()

    def device_infos(self) -> tuple[DeviceInfo, ...]:
        """Describe the untrusted devices, in the plan's order."""
        self._check_open()
        return tuple(stage.info() for stage in self.stages if isinstance(stage, DeviceStage))

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
        values = self.interface.check(inputs)
        for stage in self.stages:
            values = self._step(stage, values)
        return self._answer(values)

    def stream(
        self, requests: Iterable[Arrays], *, on_span: Callable[[Span], None] | None = None
    ) -> Generator[Results, None, None]:
        """Run requests through a pipeline in which enclave and devices work at the same time; answers keep the order.

        The arguments and errors are those of ``run``; the first error ends the stream, after the answers to the
        requests before it. A stream that is not read to its end holds its threads until it is closed or forgotten.

        Args:
            requests: the requests; read lazily, a few ahead of the answers.
            on_span: called when an item leaves a stage, in that stage's thread.
        """
        self._check_open()

        def record(item: int, step: int, start_s: float, end_s: float) -> None:
            if on_span is not None:
                on_span(Span(self.stages[step].name, item, start_s, end_s))

        def finish(values: Results) -> Results:
            return self._answer(self._step(self.stages[-1], values))

        steps: list[Callable[[Results], Results]] = [partial(self._step, stage) for stage in self.stages[:-1]]
        steps.append(finish)
        return run_pipeline(map(self.interface.check, requests), steps, on_span=record)

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
            stack.callback(self._holder.close)
            for stage in self.stages:
                if isinstance(stage, DeviceStage):
                    stack.callback(stage.close)

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

    def _step(self, stage: Stage, values: Results) -> Results:
        """Run one stage on what it may see: the inputs of its part and nothing else."""
        made = stage.run({name: values[name] for name in stage.inputs})
        return {**values, **made}

    def _answer(self, values: Results) -> Results:
        return {tensor.name: values[tensor.name] for tensor in self.outputs}
