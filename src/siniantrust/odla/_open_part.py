"""A part on its device, ready to run, with everything that comes out of it checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from siniantrust.errors import DeviceError, DeviceLostError, SinianError
from siniantrust.graph import Part, Tensor
from siniantrust.odla._ahead import Artifact, load_artifact
from siniantrust.odla._device import Arrays, Device, DeviceSpec, Executable
from siniantrust.odla._registry import open_device
from siniantrust.odla._signature import signature_of
from siniantrust.odla._text import one_line


def open_part(spec: DeviceSpec, part: Part, *, artifacts: Sequence[Artifact] = ()) -> tuple[Device, CheckedExecutable]:
    """Open a device and make ``part`` ready on it, from an artefact where there are some of its backend.

    Args:
        spec: The device.
        part: The part.
        artifacts: What was compiled ahead of time from the part, for this device or others. Those of other backends
            are left aside; among those of this one, one has to fit.

    Returns:
        The device and a ``CheckedExecutable``; closing both is the caller's.

    Raises:
        DeviceError: naming device and part: if the device is not there (any more), refuses the part, has artefacts of
            which none fits, or if its backend raises anything else.
        MissingExtraError: if the backend's library is not installed.
    """
    with _named(spec, part):
        device = open_device(spec)
        try:
            own = [artifact for artifact in artifacts if artifact.backend == spec.backend]
            executable = load_artifact(device, part, own) if own else device.compile(part)
        except BaseException:
            device.close()
            raise
    return device, CheckedExecutable(executable, part, spec)


class CheckedExecutable:
    """An executable whose outputs are the part's in names, dtypes and shapes, and finite where the inputs were."""

    def __init__(self, inner: Executable, part: Part, spec: DeviceSpec) -> None:
        self.inputs: tuple[Tensor, ...] = part.inputs
        self.outputs: tuple[Tensor, ...] = part.outputs
        self.inner = inner
        self._signature = signature_of(part)
        self._spec = spec
        self._part = part

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Run once.

        Raises:
            DataError: for inputs that do not fit.
            DeviceError: naming device and part: if the backend raises anything, leaves out or adds an output, gives it
                another dtype or shape, or makes NaN or infinity of finite values.
            DeviceLostError: if the device is gone.
        """
        extents = self._signature.check_inputs(inputs)
        with _named(self._spec, self._part):
            outputs = self.inner.run(inputs)
            problem = self._signature.output_problem(outputs, extents)
            if problem is not None:
                raise DeviceError(f"it returned {problem}")
            self._check_finite(inputs, outputs)
        return outputs

    def close(self) -> None:
        """Close the executable inside."""
        self.inner.close()

    def _check_finite(self, inputs: Arrays, outputs: Arrays) -> None:
        spoiled = [name for name, array in outputs.items() if not _is_finite(array)]
        if spoiled and all(map(_is_finite, inputs.values())):
            array = outputs[spoiled[0]]
            count = array.size - int(np.isfinite(array).sum())
            raise DeviceError(
                f"output {spoiled[0]!r} holds NaN or infinity in {count} of {array.size} places, from finite inputs"
            )


def _is_finite(array: np.ndarray) -> bool:
    return not isinstance(array, np.ndarray) or array.dtype.kind != "f" or bool(np.isfinite(array).all())


@contextmanager
def _named(spec: DeviceSpec, part: Part) -> Iterator[None]:
    """Let every error but those about the caller's data name device and part."""
    where = f"device {spec.name!r}, part {part.name!r}"
    try:
        yield
    except DeviceError as error:
        text = str(error)
        if text.startswith(where):
            raise
        text = text.removeprefix(f"device {spec.name!r}: ").removeprefix(f"part {part.name!r}: ")
        raise type(error)(f"{where}: {text}") from error
    except SinianError:
        raise
    except Exception as error:  # a backend of others may raise anything
        # Connections that drop and processes that vanish are errors of the operating system.
        kind = DeviceLostError if isinstance(error, OSError) else DeviceError
        raise kind(f"{where}: backend {spec.backend!r} raised {type(error).__name__}: {one_line(error)}") from error
