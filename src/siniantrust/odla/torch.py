"""The ``torch`` backend: a part run by PyTorch, operator by operator, on the CPU or on an accelerator."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from siniantrust._extras import require
from siniantrust.errors import DeviceError, DeviceLostError, SinianError
from siniantrust.graph import Part, Tensor
from siniantrust.odla._ahead import Build
from siniantrust.odla._by_node import unsupported_ports
from siniantrust.odla._device import Arrays, DeviceInfo, DeviceSpec, Unsupported
from siniantrust.odla._machine import processor
from siniantrust.odla._memory import MemoryUse, counted_memory
from siniantrust.odla._options import read_options
from siniantrust.odla._signature import signature_of
from siniantrust.odla._text import one_line
from siniantrust.odla._torch_export import ExportedGraph, exported
from siniantrust.odla.torch_graph import TorchGraph, torch_dtype

if TYPE_CHECKING:
    import torch

OPTIONS: Mapping[str, str] = {"device": "PyTorch's name of the device: cpu, cuda, cuda:1, mps, xpu; default cpu"}


def check_ready() -> None:
    """Raise MissingExtraError if the backend's library is not installed."""
    require("torch", extra="torch")


def open_device(spec: DeviceSpec) -> TorchDevice:
    """Open one of PyTorch's devices.

    Raises:
        DeviceError: for an unknown option, or a device that PyTorch does not have here.
    """
    check_ready()
    import torch

    name = read_options(spec, OPTIONS).text("device", "cpu")
    try:
        place = torch.device(name)
        torch.zeros(1, device=place).cpu()
    except Exception as error:  # every accelerator has errors of its own
        raise DeviceError(
            f"device {spec.name!r}: PyTorch {torch.__version__} has no device {name!r} here: {one_line(error)}"
        ) from error
    return TorchDevice(spec, place)


class TorchDevice:
    """One of PyTorch's devices. On a CPU it takes as many threads as PyTorch was told to."""

    def __init__(self, spec: DeviceSpec, place: torch.device) -> None:
        self.spec = spec
        self._place = place

    def info(self) -> DeviceInfo:
        """Describe the device, its hardware and memory."""
        import torch

        if self._place.type == "cuda":
            hardware = torch.cuda.get_device_properties(self._place)
            where, memory_bytes = hardware.name, int(hardware.total_memory)
        elif self._place.type == "cpu":
            where, memory_bytes = processor()
            where += f", {torch.get_num_threads()} threads"
        else:
            where, memory_bytes = str(self._place), 0
        return DeviceInfo(
            name=self.spec.name,
            backend=self.spec.backend,
            description=f"{where}, {self._place} of PyTorch {torch.__version__}",
            identity=f"torch-{torch.__version__}/{platform.machine()}/{self._place}/{where}",
            memory_bytes=memory_bytes or None,
        )

    def supports(self, part: Part) -> list[Unsupported]:
        """Return the nodes whose operator or attributes are not in the table of ``torch_graph``."""
        if refused := unsupported_ports(part) or _unsigned(part):
            return refused
        graph = TorchGraph(part.proto)
        return graph.supports([tensor.name for tensor in part.inputs], [tensor.name for tensor in part.outputs])

    def compile(self, part: Part) -> TorchExecutable:
        """Move the weights to the device. Raises DeviceError for a part that it does not support."""
        return TorchExecutable(part, self._place, self._graph(part))

    def build(self) -> Build:
        """Return PyTorch's version, and the kind of device that a program's weights lie on."""
        import torch

        return Build(torch.__version__, self._place.type)

    def export(self, part: Part) -> bytes:
        """Return ``part`` as PyTorch's exported program. Raises DeviceError if it cannot be traced."""
        import torch

        graph = self._graph(part)
        try:
            with torch.device(self._place):
                return exported(part, graph)
        except Exception as error:
            raise DeviceError(f"part {part.name!r}: torch.export cannot trace it: {one_line(error)}") from error

    def load(self, part: Part, data: bytes) -> TorchExecutable:
        """Load what ``export`` made of ``part``."""
        try:
            return TorchExecutable(part, self._place, ExportedGraph(part, data))
        except Exception as error:
            raise DeviceError(f"part {part.name!r}: PyTorch does not load its program: {one_line(error)}") from error

    def close(self) -> None:
        """Do nothing: memory belongs to the executables."""

    def _graph(self, part: Part) -> TorchGraph:
        """Return the part's graph with its weights on the device."""
        import torch

        if refused := self.supports(part):
            first = refused[0]
            raise DeviceError(f"part {part.name!r}: node {first.node!r} ({first.op_type}): {first.reason}")
        graph = TorchGraph(part.proto)
        try:
            with torch.device(self._place), torch.no_grad():
                graph.weights()
        except Exception as error:
            raise DeviceError(
                f"part {part.name!r}: its weights do not load on {self._place}: {one_line(error)}"
            ) from error
        return graph


class TorchExecutable:
    """A part with its weights on one of PyTorch's devices."""

    def __init__(self, part: Part, place: torch.device, graph: TorchGraph | ExportedGraph) -> None:
        self.inputs: tuple[Tensor, ...] = part.inputs
        self.outputs: tuple[Tensor, ...] = part.outputs
        self._part = part
        self._place = place
        self._signature = signature_of(part)
        self._graph: TorchGraph | ExportedGraph | None = graph

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Run once, without gradients.

        Raises:
            DataError: for inputs that do not fit.
            DeviceError: if an operator fails, memory runs out, or after ``close``.
            DeviceLostError: if the accelerator itself failed.
        """
        import torch

        name, wanted = self._part.name, [tensor.name for tensor in self.outputs]
        if self._graph is None:
            raise DeviceError(f"part {name!r} was closed")
        self._signature.check_inputs(inputs)
        try:
            with torch.device(self._place), torch.no_grad():
                # A copy: PyTorch shares memory with arrays, and warns of those that it may not write to.
                values = {key: torch.tensor(np.asarray(array, order="C")) for key, array in inputs.items()}
                found = self._graph.run(values, wanted)
                return {tensor.name: self._array(found[tensor.name], tensor) for tensor in self.outputs}
        except SinianError as error:
            raise DeviceError(f"part {name!r}: {error}") from error
        except Exception as error:
            kind = DeviceLostError if type(error).__name__ == "AcceleratorError" else DeviceError
            raise kind(f"part {name!r}: PyTorch failed: {one_line(error)}") from error

    def memory(self) -> MemoryUse:
        """Return what PyTorch's allocator says on CUDA, and what the graph says elsewhere."""
        import torch

        if self._place.type != "cuda":
            return counted_memory(self._part, runtime=f"PyTorch on {self._place.type}")
        return MemoryUse(
            resident_bytes=torch.cuda.memory_allocated(self._place),
            peak_bytes=torch.cuda.max_memory_allocated(self._place),
            basis="PyTorch's CUDA allocator, over all that this process holds there",
        )

    def close(self) -> None:
        """Free the weights."""
        self._graph = None

    def _array(self, value: torch.Tensor, tensor: Tensor) -> np.ndarray:
        dtype = torch_dtype(tensor.dtype)
        if value.dtype != dtype and value.is_floating_point() and tensor.dtype in {"int8", "uint8", "int16"}:
            value = value.to(dtype)  # quantised values stay floating inside, so that gradients pass; they are whole
        array = value.cpu().numpy()
        # An input or a weight that is an output too would otherwise share the graph's memory.
        return array.copy()


def _unsigned(part: Part) -> list[Unsupported]:
    """Refuse wide unsigned integers: PyTorch stores them, and has next to no operator for them."""
    return [
        Unsupported(node="", op_type="", reason=f"PyTorch does not compute in {tensor.dtype}, which {tensor.name!r} is")
        for tensor in (*part.inputs, *part.outputs)
        if tensor.dtype in {"uint16", "uint32", "uint64"}
    ]
