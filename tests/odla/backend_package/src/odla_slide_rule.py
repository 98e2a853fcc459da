"""A device that knows how to multiply and to add, and nothing else."""

from __future__ import annotations

import numpy as np

from siniantrust.errors import DeviceError
from siniantrust.graph import Part
from siniantrust.odla import Arrays, DeviceInfo, DeviceSpec, Unsupported

_KNOWN = {"Mul": np.multiply, "Add": np.add}


def open_device(spec: DeviceSpec) -> SlideRule:
    """Take the slide rule out of its case."""
    return SlideRule(spec)


def devices() -> list[DeviceInfo]:
    """Describe the one that lies on the desk."""
    return [SlideRule(DeviceSpec("desk", "slide-rule")).info()]


class SlideRule:
    """The device."""

    def __init__(self, spec: DeviceSpec) -> None:
        self.spec = spec

    def info(self) -> DeviceInfo:
        """Describe it."""
        return DeviceInfo(self.spec.name, self.spec.backend, "25 cm, bamboo", "slide-rule-1.0", memory_bytes=None)

    def supports(self, part: Part) -> list[Unsupported]:
        """Decline everything but products and sums."""
        return [
            Unsupported(node.name, node.op_type, "no scale for it")
            for node in part.proto.graph.node
            if node.op_type not in _KNOWN
        ]

    def compile(self, part: Part) -> Slide:
        """Note down the nodes."""
        if refused := self.supports(part):
            raise DeviceError(f"part {part.name!r}: {refused[0].op_type}: {refused[0].reason}")
        return Slide(part)

    def close(self) -> None:
        """Put it back."""


class Slide:
    """A part, node by node."""

    def __init__(self, part: Part) -> None:
        self.inputs, self.outputs = part.inputs, part.outputs
        self._nodes = list(part.proto.graph.node)

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Compute each node."""
        values = dict(inputs)
        for node in self._nodes:
            values[node.output[0]] = _KNOWN[node.op_type](*(values[name] for name in node.input))
        return {tensor.name: values[tensor.name] for tensor in self.outputs}

    def close(self) -> None:
        """Forget the nodes."""
