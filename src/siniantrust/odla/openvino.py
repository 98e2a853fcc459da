"""The OpenVINO backend: any of its devices by name, failing closed, in the precision that the model has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from siniantrust._extras import require
from siniantrust.errors import DeviceError
from siniantrust.graph import Part, Tensor
from siniantrust.odla._ahead import Build
from siniantrust.odla._by_node import blamed_nodes, unsupported_ports
from siniantrust.odla._device import Arrays, DeviceInfo, DeviceSpec, Unsupported
from siniantrust.odla._machine import instruction_set, processor
from siniantrust.odla._memory import MemoryUse, counted_memory
from siniantrust.odla._openvino_wrong import RULES
from siniantrust.odla._options import read_options
from siniantrust.odla._signature import signature_of
from siniantrust.odla._text import one_line
from siniantrust.odla._wrong_nodes import wrongly_computed

OPTIONS: Mapping[str, str] = {
    "device": "OpenVINO's name of the device: CPU, GPU, GPU.1, NPU; default CPU",
    "threads": "threads on the CPU; default: every core that this process may use",
}
PROPERTY_PREFIX = "property."
# These put parts of the model where they see fit, so that one could not say which device saw a value.
_META_DEVICES = ("AUTO", "MULTI", "HETERO", "BATCH")


def check_ready() -> None:
    """Raise MissingExtraError if the backend's library is not installed."""
    require("openvino", extra="openvino")


def open_device(spec: DeviceSpec) -> OpenVinoDevice:
    """Open one of OpenVINO's devices; options that begin with ``property.`` go to its plug-in.

    Raises:
        DeviceError: for an unknown option, or a device that OpenVINO does not find here.
    """
    options = read_options(spec, OPTIONS, prefix=PROPERTY_PREFIX)
    place = options.text("device", "CPU")
    threads = options.integer("threads", len(os.sched_getaffinity(0)), minimum=1)
    core = _core()
    if place.split(":")[0] in _META_DEVICES:
        raise DeviceError(f"device {spec.name!r}: OpenVINO's {place!r} chooses devices by itself; name one of them")
    if place not in core.available_devices:
        found = ", ".join(core.available_devices) or "none"
        raise DeviceError(f"device {spec.name!r}: OpenVINO has no device {place!r} here; it has {found}")
    # By default the CPU computes in 16 bits where it has instructions for them, which changes the answers.
    properties = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
    if place == "CPU":
        properties["INFERENCE_NUM_THREADS"] = str(threads)
    return OpenVinoDevice(spec, core, place, properties | options.with_prefix(PROPERTY_PREFIX))


def devices() -> list[DeviceInfo]:
    """Describe the devices that OpenVINO finds here."""
    return [
        open_device(DeviceSpec(f"openvino-{place.lower()}", "openvino", {"device": place})).info()
        for place in _core().available_devices
    ]


class OpenVinoDevice:
    """One of OpenVINO's devices."""

    def __init__(self, spec: DeviceSpec, core: Any, place: str, properties: Mapping[str, str]) -> None:
        self.spec = spec
        self._core = core
        self._place = place
        self._properties = dict(properties)

    def info(self) -> DeviceInfo:
        """Describe the device as its plug-in does."""
        hardware = str(self._core.get_property(self._place, "FULL_DEVICE_NAME"))
        build = self.build()
        settings = "/".join(f"{key}={value}" for key, value in sorted(self._properties.items()))
        return DeviceInfo(
            name=self.spec.name,
            backend=self.spec.backend,
            description=f"{hardware}, {self._place} of OpenVINO {build.version}",
            identity=f"openvino-{build.version}/{self._place}/{hardware}/{settings}",
            memory_bytes=processor()[1] if self._place == "CPU" else None,
        )

    def supports(self, part: Part) -> list[Unsupported]:
        """Return the nodes that OpenVINO cannot read, or that the device's plug-in cannot compile."""
        if refused := unsupported_ports(part) or wrongly_computed(part, RULES):
            return refused
        reason = self._refusal(part.proto)
        if reason is None:
            return []
        return blamed_nodes(part, self._refusal) or [Unsupported(node="", op_type="", reason=reason)]

    def compile(self, part: Part) -> OpenVinoExecutable:
        """Compile ``part``. Raises DeviceError if OpenVINO refuses it, or is known to compute a node wrongly."""
        self._check(part)
        try:
            return OpenVinoExecutable(part, self._compiled(part.proto))
        except Exception as error:
            raise DeviceError(f"part {part.name!r}: OpenVINO refused it: {_reason(error)}") from error

    def build(self) -> Build:
        """Return OpenVINO's build, and what its compiled models are for."""
        version = str(self._core.get_versions(self._place)[self._place].build_number)
        hardware = instruction_set() if self._place == "CPU" else ""
        name = self._core.get_property(self._place, "FULL_DEVICE_NAME")
        return Build(version, "/".join([self._place, *([hardware] if hardware else [str(name)])]))

    def export(self, part: Part) -> bytes:
        """Return the compiled model as a blob. Raises DeviceError as ``compile`` does, or if it cannot be exported."""
        self._check(part)
        try:
            blob = self._compiled(part.proto).export_model()
        except Exception as error:
            raise DeviceError(f"part {part.name!r}: OpenVINO cannot export it: {_reason(error)}") from error
        return bytes(blob.getvalue())

    def load(self, part: Part, data: bytes) -> OpenVinoExecutable:
        """Import what ``export`` made of ``part``."""
        try:
            return OpenVinoExecutable(part, self._core.import_model(data, self._place, self._properties))
        except Exception as error:
            raise DeviceError(f"part {part.name!r}: OpenVINO refused its blob: {_reason(error)}") from error

    def close(self) -> None:
        """Do nothing: a plug-in holds nothing beyond its executables."""

    def _check(self, part: Part) -> None:
        for refused in wrongly_computed(part, RULES):
            raise DeviceError(f"part {part.name!r}: node {refused.node!r} ({refused.op_type}): {refused.reason}")

    def _compiled(self, proto: onnx.ModelProto) -> Any:
        model = self._core.read_model(proto.SerializeToString(), b"")
        return self._core.compile_model(model, self._place, self._properties)

    def _refusal(self, proto: onnx.ModelProto) -> str | None:
        try:
            self._compiled(proto)
        except Exception as error:  # noqa: BLE001 - OpenVINO raises RuntimeError and what its plug-ins raise
            return _reason(error)
        return None


class OpenVinoExecutable:
    """A part that OpenVINO compiled."""

    def __init__(self, part: Part, compiled: Any) -> None:
        self.inputs: tuple[Tensor, ...] = part.inputs
        self.outputs: tuple[Tensor, ...] = part.outputs
        self._part = part
        self._signature = signature_of(part)
        self._compiled = compiled
        # By position, since OpenVINO lets one value that is several outputs go by one of its names.
        self._count = len(compiled.outputs)
        if self._count != len(part.outputs):
            raise DeviceError(f"part {part.name!r}: OpenVINO made {self._count} outputs of {len(part.outputs)}")
        # OpenVINO leaves out inputs that nothing reads.
        self._read = {name for port in compiled.inputs for name in port.get_names()}

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Run once.

        Raises:
            DataError: for inputs that do not fit.
            DeviceError: if OpenVINO fails, or after ``close``.
        """
        if self._compiled is None:
            raise DeviceError(f"part {self._part.name!r} was closed")
        self._signature.check_inputs(inputs)
        given = {name: np.asarray(array, order="C") for name, array in inputs.items() if name in self._read}
        try:
            request = self._compiled.create_infer_request()
            request.infer(given, share_inputs=True)
            return {
                tensor.name: np.array(request.get_output_tensor(index).data)
                for index, tensor in enumerate(self.outputs)
            }
        except Exception as error:
            raise DeviceError(f"part {self._part.name!r}: OpenVINO failed: {_reason(error)}") from error

    def memory(self) -> MemoryUse:
        """Return what the graph says: OpenVINO's CPU plug-in does not tell."""
        return counted_memory(self._part, runtime="OpenVINO")

    def close(self) -> None:
        """Free the compiled model."""
        self._compiled = None


def _core() -> Any:
    check_ready()
    import openvino

    return openvino.Core()


def _reason(error: object) -> str:
    """Return what an error of OpenVINO says, without the places in its source that come before."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("Exception from", "Check '", "While validating"))]
    return one_line(" ".join(said) or error)
