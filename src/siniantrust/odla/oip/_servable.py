"""The parts that a server serves: loaded on a device, and run for requests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from siniantrust import __version__
from siniantrust._files import sha256_bytes
from siniantrust.errors import DeviceError, ProtocolError
from siniantrust.odla._calibration import compute_part, link_part
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
from siniantrust.odla.oip._part_files import read_parts
from siniantrust.odla.oip._rest_codec import BINARY_EXTENSION
from siniantrust.odla.oip._tensors import DATATYPES

_log = logging.getLogger(__name__)
SERVER = ServerMetadata(name="siniantrust", version=__version__, extensions=(BINARY_EXTENSION,))


class NotFoundError(DeviceError):
    """A request names a model or version that is not served here."""


@dataclass(frozen=True, slots=True)
class Servable:
    """A part, loaded on the server's device. ``version`` is the SHA-256 of its file."""

    name: str
    version: str
    signature: Signature
    executable: Executable

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


@dataclass(frozen=True)
class Servables:
    """What a server has: the parts that it serves, and the small ones by which clients measure way and speed."""

    parts: tuple[Servable, ...]
    calibration: tuple[Servable, ...]
    device: Device

    def find(self, model: str, version: str) -> Servable:
        """Return the servable with that name and version (empty: any). Raises NotFoundError if there is none."""
        found = next((each for each in (*self.parts, *self.calibration) if each.name == model), None)
        if found is None:
            served = ", ".join(repr(each.name) for each in self.parts)
            raise NotFoundError(f"model {model[:80]!r} is not served here; this server has {served}")
        if version not in {"", found.version}:
            raise NotFoundError(
                f"model {found.name!r} has no version {version[:80]!r} here; this server has {found.version}"
            )
        return found

    def close(self) -> None:
        """Free the parts and their device."""
        for each in (*self.parts, *self.calibration):
            each.executable.close()
        self.device.close()


def load_servables(path: Path, spec: DeviceSpec) -> Servables:
    """Load what is at ``path`` on a device: a part, or all untrusted ones of a bundle, each under its own name.

    A part is a folder with ``model.onnx`` and ``part.json``, or an ``.onnx`` file.

    Raises:
        BundleError: if a file is missing, malformed, or not the one that ``part.json`` names by its SHA-256, or a
            bundle has no untrusted part.
        DeviceError: if the device cannot run a part.
    """
    found = read_parts(path)
    device = open_device(spec)
    try:
        parts = [Servable(part.name, digest, signature_of(part), device.compile(part)) for part, digest in found]
        return Servables(tuple(parts), tuple(_calibration(device)), device)
    except BaseException:
        device.close()
        raise


def _calibration(device: Device) -> Iterator[Servable]:
    """Load what the device takes of the calibration parts; a server does without the others."""
    for part in (link_part(), compute_part()):
        try:
            executable = device.compile(part)
        except DeviceError as refusal:
            _log.warning("no calibration by %r here: %s", part.name, refusal)
            continue
        digest = sha256_bytes(part.proto.SerializeToString(deterministic=True))
        yield Servable(part.name, digest, signature_of(part), executable)
