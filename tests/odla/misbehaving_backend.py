"""A backend, such as a third party might write, that gets one thing wrong; the option ``fault`` says which."""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

import numpy as np

from siniantrust.errors import DeviceLostError
from siniantrust.graph import Part
from siniantrust.odla import Arrays, Device, DeviceSpec, Executable
from siniantrust.odla import open_device as open_any


def open_device(spec: DeviceSpec) -> Device:
    """Open ONNX Runtime behind a fault."""
    return Misbehaving(spec)


class Misbehaving:
    """A device with a fault."""

    def __init__(self, spec: DeviceSpec) -> None:
        self.spec = spec
        self._inner = open_any(replace(spec, backend="onnxruntime", options={"threads": 1}))
        self.info, self.supports, self.close = self._inner.info, self._inner.supports, self._inner.close

    def compile(self, part: Part) -> Executable:
        """Compile, or fail as no backend should."""
        fault = str(self.spec.options["fault"])
        if fault == "raises at compile":
            raise KeyError("out of registers")
        return _Run(self._inner.compile(part), fault)


class _Run:
    def __init__(self, inner: Executable, fault: str) -> None:
        self.inputs, self.outputs, self.close = inner.inputs, inner.outputs, inner.close
        self._inner = inner
        self._fault = fault

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        outputs = self._inner.run(inputs)
        name = next(iter(outputs))
        array = outputs[name]
        match self._fault:
            case "raises":
                _raise(ZeroDivisionError("in a kernel"))
            case "is lost":
                _raise(DeviceLostError("unplugged"))
            case "nan":
                array.flat[0] = np.nan
            case "infinity":
                array.flat[-1] = np.inf
            case "shape":
                outputs[name] = array[..., None]
            case "dtype":
                outputs[name] = array.astype(np.float64)
            case "name":
                outputs["z"] = outputs.pop(name)
            case "nothing":
                outputs.clear()
        return outputs


def _raise(error: Exception) -> NoReturn:
    raise error
