"""The IREE backend: parts compiled to machine code for CPUs, or to SPIR-V for any Vulkan device."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from siniantrust._extras import require
from siniantrust.errors import DeviceError
from siniantrust.graph import Part, Tensor, part_digest
from siniantrust.odla._ahead import Build
from siniantrust.odla._by_node import unsupported_ports
from siniantrust.odla._device import Arrays, DeviceInfo, DeviceSpec, Unsupported
from siniantrust.odla._iree_compile import CompileError, Target, compile_part, refused_nodes
from siniantrust.odla._machine import instruction_set, processor
from siniantrust.odla._memory import MemoryUse
from siniantrust.odla._options import Options, read_options
from siniantrust.odla._signature import signature_of
from siniantrust.odla._text import one_line

OPTIONS: Mapping[str, str] = {
    "target": "llvm-cpu or vulkan; default llvm-cpu",
    "cpu": "processor that llvm-cpu compiles for, in LLVM's words; default host, or generic with another triple",
    "triple": "LLVM triple to compile for instead of this machine's, such as aarch64-linux-gnu: for artefacts only",
    "index": "which of the Vulkan devices, counted from 0; default 0",
}
_DRIVERS = {"llvm-cpu": "local-task", "vulkan": "vulkan"}


def check_ready() -> None:
    """Raise MissingExtraError if the runtime is not installed; the compiler is asked for when a part is compiled."""
    require("iree.runtime", extra="iree")


def open_device(spec: DeviceSpec) -> IreeDevice:
    """Open this machine's processor, or a Vulkan device, through IREE.

    Raises:
        DeviceError: for an unknown option, or a device that is not there.
    """
    check_ready()
    options = read_options(spec, OPTIONS)
    name = options.text("target", "llvm-cpu")
    if name not in _DRIVERS:
        raise DeviceError(f"device {spec.name!r}: option 'target' must be one of {', '.join(_DRIVERS)}, found {name!r}")
    triple = options.text("triple", "")
    target = Target(name, cpu=options.text("cpu", "generic" if triple else "host"), triple=triple)
    hardware, handle = ("", None) if triple else _opened(spec, name, options)
    return IreeDevice(spec, target, hardware, handle)


def devices() -> list[DeviceInfo]:
    """Describe the processor, and each Vulkan device."""
    import iree.runtime

    found = [open_device(DeviceSpec("iree-cpu", "iree")).info()]
    try:
        count = len(iree.runtime.get_driver("vulkan").query_available_devices())
    except Exception:  # noqa: BLE001 - no Vulkan loader here, which IREE says in several ways
        return found
    for index in range(count):
        spec = DeviceSpec(f"iree-vulkan{index}", "iree", {"target": "vulkan", "index": index})
        found.append(open_device(spec).info())
    return found


def _opened(spec: DeviceSpec, name: str, options: Options) -> tuple[str, Any]:
    """Return what the hardware calls itself, and IREE's handle of it."""
    import iree.runtime

    index = options.integer("index", 0, minimum=0)
    try:
        driver = iree.runtime.get_driver(_DRIVERS[name])
        found = driver.query_available_devices()
        handle = driver.create_device(found[index]["device_id"]) if index < len(found) else None
    except Exception as error:
        raise DeviceError(f"device {spec.name!r}: IREE has no device for {name} here: {one_line(error)}") from error
    if handle is None:
        raise DeviceError(f"device {spec.name!r}: IREE finds {len(found)} devices for {name}, none with index {index}")
    return (processor()[0] if name == "llvm-cpu" else str(found[index]["name"])), handle


class IreeDevice:
    """One device of IREE. With another machine's ``triple`` it compiles ahead of time and runs nothing."""

    def __init__(self, spec: DeviceSpec, target: Target, hardware: str, handle: Any) -> None:
        self.spec = spec
        self._target = target
        self._hardware = hardware
        self._handle = handle
        # ``supports`` compiles the part, and ``compile`` mostly follows: the last outcome is kept.
        self._last: tuple[str, bytes | CompileError] | None = None

    def info(self) -> DeviceInfo:
        """Describe the device."""
        build = self.build()
        where = self._hardware or f"another machine ({self._target.triple})"
        return DeviceInfo(
            name=self.spec.name,
            backend=self.spec.backend,
            description=f"{where}, {self._target.backend} of IREE {build.version}",
            identity=f"iree-{build.version}/{build.target}/{where}",
            memory_bytes=processor()[1] if self._target.backend == "llvm-cpu" and self._handle is not None else None,
        )

    def supports(self, part: Part) -> list[Unsupported]:
        """Compile ``part`` and return the nodes that the compiler complains of."""
        if refused := unsupported_ports(part):
            return refused
        outcome = self._outcome(part)
        return [] if isinstance(outcome, bytes) else refused_nodes(part, outcome)

    def compile(self, part: Part) -> IreeExecutable:
        """Compile ``part`` and load it. Raises DeviceError if IREE refuses it."""
        return self.load(part, self.export(part))

    def build(self) -> Build:
        """Return IREE's version, and the machine that its code is for."""
        target = self._target
        if target.backend == "vulkan":
            machine = "spirv"
        elif target.triple:
            machine = f"{target.triple.split('-')[0]}/{target.cpu}"
        else:
            machine = f"{instruction_set().split('+')[0] if target.cpu != 'host' else instruction_set()}/{target.cpu}"
        return Build(version("iree-base-runtime"), f"{target.backend}/{machine}")

    def export(self, part: Part) -> bytes:
        """Return ``part`` as IREE's module (.vmfb). Raises DeviceError if IREE refuses it."""
        signature_of(part)
        outcome = self._outcome(part)
        if isinstance(outcome, CompileError):
            raise DeviceError(f"part {part.name!r}: IREE refused it for {self._target.backend}: {outcome.reason}")
        return outcome

    def load(self, part: Part, data: bytes) -> IreeExecutable:
        """Load what ``export`` made of ``part``."""
        if self._handle is None:
            raise DeviceError(
                f"part {part.name!r}: the device compiles for {self._target.triple}, and nothing of that runs here"
            )
        return IreeExecutable(part, data, self._handle)

    def close(self) -> None:
        """Let go of the device."""
        self._handle = self._last = None

    def _outcome(self, part: Part) -> bytes | CompileError:
        digest = part_digest(part)
        if self._last is None or self._last[0] != digest:
            self._last = digest, compile_part(part, self._target)
        return self._last[1]


class IreeExecutable:
    """A part as an IREE module on a device."""

    def __init__(self, part: Part, data: bytes, handle: Any) -> None:
        import iree.runtime

        self.inputs: tuple[Tensor, ...] = part.inputs
        self.outputs: tuple[Tensor, ...] = part.outputs
        self._name = part.name
        self._order = [value.name for value in part.proto.graph.input]
        self._signature = signature_of(part)
        self._size_bytes = len(data)
        self._handle = handle
        try:
            context = iree.runtime.SystemContext(config=iree.runtime.Config(device=handle))
            context.add_vm_module(iree.runtime.VmModule.copy_buffer(context.instance, data))
            self._function: Any = context.modules.module["main"]
        except Exception as error:
            raise DeviceError(f"part {part.name!r}: IREE does not load it: {one_line(error)}") from error

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Run once.

        Raises:
            DataError: for inputs that do not fit.
            DeviceError: if IREE fails, or after ``close``.
        """
        if self._function is None:
            raise DeviceError(f"part {self._name!r} was closed")
        self._signature.check_inputs(inputs)
        try:
            found = self._function(*(np.asarray(inputs[name], order="C") for name in self._order))
            values = found if isinstance(found, tuple) else (found,)
            return {
                tensor.name: _to_host(value, self._handle, tensor.dtype)
                for tensor, value in zip(self.outputs, values, strict=True)
            }
        except Exception as error:
            raise DeviceError(f"part {self._name!r}: IREE failed: {one_line(error)}") from error

    def memory(self) -> MemoryUse:
        """Return what IREE's allocator counted, beside the module itself."""
        counted = self._handle.allocator.statistics
        if not counted:
            return MemoryUse(self._size_bytes, None, "the module's size; this IREE keeps no statistics")
        held = counted["device_bytes_allocated"] - counted["device_bytes_freed"]
        return MemoryUse(
            resident_bytes=self._size_bytes + held,
            peak_bytes=self._size_bytes + counted["device_bytes_peak"],
            basis="IREE's allocator, over all that this device ran since it was opened, and the module's size",
        )

    def close(self) -> None:
        """Free the module."""
        self._function = None


def _to_host(value: Any, handle: Any, dtype: str) -> np.ndarray:
    """Copy a value off the device through a staging buffer.

    IREE's own way asks Vulkan to take over numpy's memory, which Mesa refuses unless it begins on a page.
    """
    import iree.runtime as rt

    view = value._buffer_view  # noqa: SLF001 - the array has no public way to its buffer
    # IREE's integers have no sign: the bytes are right, and the part knows which type they are.
    wanted = np.dtype(dtype)
    if not view.byte_length:
        return np.empty(view.shape, wanted)
    source = view.get_buffer()
    staging = handle.allocator.allocate_buffer(
        memory_type=int(rt.MemoryType.HOST_LOCAL | rt.MemoryType.DEVICE_VISIBLE),
        allowed_usage=int(rt.BufferUsage.TRANSFER_TARGET | rt.BufferUsage.MAPPING_SCOPED),
        allocation_size=view.byte_length,
    )
    done = handle.create_semaphore(0)
    handle.queue_copy(
        source,
        staging,
        wait_semaphores=rt.HalFence.create_at(done, 0),
        signal_semaphores=rt.HalFence.create_at(done, 1),
    )
    rt.HalFence.create_at(done, 1).wait()
    raw = np.array(staging.map().asarray([view.byte_length], np.dtype(np.uint8)))
    return raw.view(wanted).reshape(view.shape)
