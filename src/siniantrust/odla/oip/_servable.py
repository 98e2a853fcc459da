"""The part that a server serves: loaded on a device, and run for requests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from siniantrust import __version__
from siniantrust.errors import DeviceError, ProtocolError
from siniantrust.odla._device import Device, DeviceSpec, Executable
from siniantrust.odla._registry import open_device
from siniantrust.odla._signature import Signature, signature_of
from siniantrust.odla.oip._messages import (
    InferAnswer,
    InferRequest,
    ModelMetadata,
    ServerMetadata,
    TensorMetadata,
)
from siniantrust.odla.oip._part_files import read_part
from siniantrust.odla.oip._rest_codec import BINARY_EXTENSION
from siniantrust.odla.oip._tensors import DATATYPES

SERVER = ServerMetadata(name="siniantrust", version=__version__, extensions=(BINARY_EXTENSION,))


class NotFoundError(DeviceError):
    """A request names a model or version that is not served here."""


@dataclass(frozen=True, slots=True)
class Servable:
    """A part, loaded on a device. ``version`` is the SHA-256 of its file."""

    name: str
    version: str
    signature: Signature
    device: Device
    executable: Executable

    def check_name(self, model: str, version: str) -> None:
        """Raise NotFoundError unless ``model`` and ``version`` (empty: any) are what is served here."""
        if model != self.name:
            raise NotFoundError(f"model {model[:80]!r} is not served here; this server has {self.name!r}")
        if version not in {"", self.version}:
            raise NotFoundError(
                f"model {self.name!r} has no version {version[:80]!r} here; this server has {self.version}"
            )

    def metadata(self) -> ModelMetadata:
        """Describe the part to clients; a free dimension is -1."""
        tensors = [
            tuple(
                TensorMetadata(
                    name=port.name,
                    datatype=DATATYPES[port.dtype],
                    shape=tuple(extent if isinstance(extent, int) else -1 for extent in port.dimensions),
                )
                for port in ports
            )
            for ports in (self.signature.inputs, self.signature.outputs)
        ]
        return ModelMetadata(
            name=self.name,
            versions=(self.version,),
            platform="onnx_onnxv1",
            inputs=tensors[0],
            outputs=tensors[1],
        )

    def infer(self, request: InferRequest) -> InferAnswer:
        """Run one request.

        Raises:
            DataError: for inputs that do not fit.
            ProtocolError: for an output that the part does not have.
            DeviceError: if the device fails.
        """
        known = [port.name for port in self.signature.outputs]
        for name in request.outputs:
            if name not in known:
                raise ProtocolError(f"output {name[:80]!r} is not one of the model's; it has {', '.join(known)}")
        outputs = self.executable.run(request.inputs)
        wanted: list[str] = list(request.outputs) or known
        return InferAnswer(model=self.name, version=self.version, outputs={name: outputs[name] for name in wanted})

    def close(self) -> None:
        """Free the part and its device."""
        self.executable.close()
        self.device.close()


def load_servable(path: Path, spec: DeviceSpec) -> Servable:
    """Load the part at ``path`` (a folder with ``model.onnx`` and ``part.json``, or an ``.onnx`` file) on a device.

    Raises:
        BundleError: if a file is missing, malformed, or not the one that ``part.json`` names by its SHA-256.
        DeviceError: if the device cannot run the part.
    """
    part, digest = read_part(path)
    signature = signature_of(part)
    device = open_device(spec)
    try:
        return Servable(part.name, digest, signature, device, device.compile(part))
    except BaseException:
        device.close()
        raise
