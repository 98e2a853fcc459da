"""The ONNX Runtime backend: any of its execution providers, failing closed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from siniantrust._extras import require
from siniantrust.errors import DeviceError, DeviceLostError
from siniantrust.graph import Part, Tensor
from siniantrust.odla._ahead import Build
from siniantrust.odla._device import Arrays, DeviceInfo, DeviceSpec, Unsupported
from siniantrust.odla._machine import instruction_set, processor
from siniantrust.odla._memory import MemoryUse, counted_memory
from siniantrust.odla._options import read_options
from siniantrust.odla._ort_profile import profile_part
from siniantrust.odla._ort_session import CPU, SessionConfig, create_session, optimised, session_of_optimised
from siniantrust.odla._ort_support import unsupported_nodes
from siniantrust.odla._profile import NodeProfile
from siniantrust.odla._signature import signature_of
from siniantrust.odla._text import one_line

OPTIONS: Mapping[str, str] = {
    "provider": "execution provider, short (CPU, CUDA, OpenVINO) or in full; default CPU",
    "threads": "threads within an operator; default: every core that this process may use",
    # On two cores with two threads, 200 small convolutions took 1.4 times as long without it, large ones the same.
    "spinning": "threads wait for work in a busy loop, faster for small operators, unkind to neighbours; default true",
    "cpu_helpers": "let nodes that the provider does not take run on the CPU; default false: they are an error",
}
PROVIDER_PREFIX = "provider."
# It forwards whole models to a cloud endpoint and runs no operator of its own.
_NOT_LOCAL = frozenset({"AzureExecutionProvider"})


def check_ready() -> None:
    """Raise MissingExtraError if the backend's library is not installed."""
    require("onnxruntime", extra="")


def open_device(spec: DeviceSpec) -> OnnxRuntimeDevice:
    """Open an execution provider as a device; options beginning with ``provider.`` go to the provider itself.

    Raises:
        DeviceError: for an unknown option, or a provider that this installation of ONNX Runtime does not have.
    """
    options = read_options(spec, OPTIONS, prefix=PROVIDER_PREFIX)
    provider = _full_name(options.text("provider", "CPU"))
    available = _available()
    if provider not in available:
        raise DeviceError(
            f"device {spec.name!r}: {provider} is not available; this ONNX Runtime has {', '.join(available)}"
        )
    provider_options = options.with_prefix(PROVIDER_PREFIX)
    if provider == CPU and provider_options:
        # ONNX Runtime would ignore them in silence.
        raise DeviceError(
            f"device {spec.name!r}: {CPU} takes no option {PROVIDER_PREFIX}{next(iter(provider_options))}"
        )
    config = SessionConfig(
        provider=provider,
        provider_options=provider_options,
        threads=options.integer("threads", len(os.sched_getaffinity(0)), minimum=1),
        spinning=options.flag("spinning", default=True),
        cpu_helpers=options.flag("cpu_helpers", default=False),
    )
    return OnnxRuntimeDevice(spec, config)


def devices() -> list[DeviceInfo]:
    """Describe one device for each execution provider that is installed here."""
    found = []
    for provider in _available():
        if provider not in _NOT_LOCAL:
            short = provider.removesuffix("ExecutionProvider")
            spec = DeviceSpec(name=short.lower(), options={"provider": short})
            found.append(open_device(spec).info())
    return found


class OnnxRuntimeDevice:
    """One execution provider of ONNX Runtime."""

    def __init__(self, spec: DeviceSpec, config: SessionConfig) -> None:
        self.spec = spec
        self._config = config

    def info(self) -> DeviceInfo:
        """Describe the provider, the threads and, for the CPU, the processor and its memory."""
        import onnxruntime

        config = self._config
        where, memory_bytes = processor() if config.provider == CPU else (config.provider, None)
        return DeviceInfo(
            name=self.spec.name,
            backend=self.spec.backend,
            description=f"{where}, {config.threads} of {os.cpu_count()} cores, ONNX Runtime {onnxruntime.__version__}",
            identity="/".join(
                [
                    f"onnxruntime-{onnxruntime.__version__}",
                    config.provider,
                    where,
                    f"threads={config.threads}",
                    f"spinning={config.spinning}",
                    *(f"{key}={value}" for key, value in sorted(config.provider_options.items())),
                ]
            ),
            memory_bytes=memory_bytes,
        )

    def supports(self, part: Part) -> list[Unsupported]:
        """Return the nodes that the provider cannot run; with ``cpu_helpers`` the CPU may take some."""
        return unsupported_nodes(part, self._config)

    def compile(self, part: Part) -> OnnxRuntimeExecutable:
        """Load ``part``. Raises DeviceError if ONNX Runtime refuses it or would run any node elsewhere."""
        return OnnxRuntimeExecutable(part, create_session(part, self._config))

    def build(self) -> Build:
        """Return the version, and the provider and instructions that an optimised model is for."""
        import onnxruntime

        return Build(onnxruntime.__version__, f"{instruction_set()}/{self._config.provider}")

    def export(self, part: Part) -> bytes:
        """Return the model as ONNX Runtime optimised it for this provider. Raises DeviceError as ``compile`` does."""
        return optimised(part, self._config)

    def load(self, part: Part, data: bytes) -> OnnxRuntimeExecutable:
        """Load what ``export`` made of ``part``; nothing is optimised again."""
        return OnnxRuntimeExecutable(part, session_of_optimised(part, data, self._config))

    def profile(self, part: Part, inputs: Arrays, *, repeats: int) -> NodeProfile:
        """Measure the seconds that each node takes."""
        signature_of(part).check_inputs(inputs)
        return profile_part(part, self._config, inputs, repeats=repeats)

    def close(self) -> None:
        """Do nothing: a provider holds nothing beyond its executables."""


class OnnxRuntimeExecutable:
    """A part in an ONNX Runtime session."""

    def __init__(self, part: Part, session: Any) -> None:
        self.inputs: tuple[Tensor, ...] = part.inputs
        self.outputs: tuple[Tensor, ...] = part.outputs
        self._name = part.name
        self._part = part
        self._signature = signature_of(part)
        self._output_names = [tensor.name for tensor in part.outputs]
        self._session = session

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Run once; arrays may have any batch size where the part's first dimension is free.

        Raises:
            DataError: for inputs that do not fit.
            DeviceError: if an operator fails, or after ``close``.
            DeviceLostError: if the execution provider itself failed.
        """
        if self._session is None:
            raise DeviceError(f"part {self._name!r} was closed")
        self._signature.check_inputs(inputs)
        try:
            values = self._session.run(self._output_names, dict(inputs))
        except Exception as error:
            kind = DeviceLostError if type(error).__name__ == "EPFail" else DeviceError
            raise kind(f"part {self._name!r}: ONNX Runtime failed: {one_line(error)}") from error
        return {name: np.asarray(value) for name, value in zip(self._output_names, values, strict=True)}

    def memory(self) -> MemoryUse:
        """Return what the graph says: ONNX Runtime's Python interface does not show its arena."""
        return counted_memory(self._part, runtime="ONNX Runtime")

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _full_name(provider: str) -> str:
    return provider if provider.endswith("ExecutionProvider") else f"{provider}ExecutionProvider"


def _available() -> list[str]:
    import onnxruntime

    return list(onnxruntime.get_available_providers())
