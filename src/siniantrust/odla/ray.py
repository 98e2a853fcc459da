"""The ``ray`` backend: a device of another backend in an actor, on whichever node of a Ray cluster has room for it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np

from siniantrust import __version__
from siniantrust._extras import require
from siniantrust.errors import DeviceError, DeviceLostError
from siniantrust.graph import Part, Tensor
from siniantrust.odla._device import Arrays, DeviceInfo, DeviceSpec, Unsupported
from siniantrust.odla._memory import MemoryUse
from siniantrust.odla._options import Options, read_options
from siniantrust.odla._ray_actor import DeviceActor, Opened
from siniantrust.odla._ray_cluster import call, check_joined, end, join, tell
from siniantrust.odla._signature import signature_of
from siniantrust.odla._text import one_line

OPTIONS: Mapping[str, str] = {
    "address": "the head's host:port; default: the cluster that this process is in, else that of RAY_ADDRESS",
    "inner": "backend that computes on the node; default onnxruntime",
    "num_cpus": "cores that the device claims of its node; default 1",
    "num_gpus": "GPUs that it claims, parts of one too; default 0",
    "timeout_s": "seconds that placing the device, and each call, may take; default 60",
}
INNER_PREFIX = "inner."
RESOURCE_PREFIX = "resource."
NAMESPACE = "siniantrust"


def check_ready() -> None:
    """Raise MissingExtraError if the backend's library is not installed."""
    require("ray", extra="ray")


def open_device(spec: DeviceSpec) -> RayDevice:
    """Start an actor on the cluster and open a device of the backend ``inner`` in it.

    Options that begin with ``inner.`` are that device's; ``resource.NAME`` is an amount of a resource that the node has
    to have, by which nodes are chosen (Ray gives each one ``node:ADDRESS`` too).

    Raises:
        DeviceError: for an unknown option, a cluster that is not there, no node with room, or what the device on the
            node raises.
        DeviceLostError: if the actor dies meanwhile.
        MissingExtraError: if Ray is not installed here, or the inner backend's library not there.
    """
    check_ready()
    options = read_options(spec, OPTIONS, prefix=(INNER_PREFIX, RESOURCE_PREFIX))
    inner = DeviceSpec(spec.name, options.text("inner", "onnxruntime"), options.with_prefix(INNER_PREFIX))
    if inner.backend == spec.backend:
        raise DeviceError(f"device {spec.name!r}: option 'inner' must be a backend that computes, found 'ray'")
    timeout_s = options.seconds("timeout_s", 60.0)
    claims = _claims(options)
    join(options.text("address", ""), device=spec.name)
    actor = _start(spec, claims)
    try:
        opened = call(actor, "open", inner, __version__, timeout_s=timeout_s)
    except DeviceLostError as lost:
        end(actor)
        raise DeviceLostError(f"device {spec.name!r}: {lost}; it claims {_listed(claims)} of one node") from lost
    except BaseException:
        end(actor)
        raise
    return RayDevice(spec, actor, opened, timeout_s=timeout_s)


class RayDevice:
    """A device in an actor. When the actor, its process or its node dies, the device is lost, and opened anew."""

    def __init__(self, spec: DeviceSpec, actor: Any, opened: Opened, *, timeout_s: float) -> None:
        self.spec = spec
        self._actor = actor
        self._opened = opened
        self._timeout_s = timeout_s

    def info(self) -> DeviceInfo:
        """Describe the device on the node, as it was when it was opened."""
        version, opened = require("ray", extra="ray").__version__, self._opened
        return DeviceInfo(
            name=self.spec.name,
            backend=self.spec.backend,
            description=f"{opened.info.description}; on node {opened.node_id[:12]} of a Ray {version} cluster",
            identity=f"ray-{version}/{opened.info.identity}",
            memory_bytes=opened.info.memory_bytes,
        )

    def supports(self, part: Part) -> list[Unsupported]:
        """Ask the device on the node. Raises DeviceLostError if it is gone."""
        refused: list[Unsupported] = call(self._actor, "supports", _stored(part), timeout_s=self._timeout_s)
        return refused

    def compile(self, part: Part) -> RayExecutable:
        """Put ``part`` into the object store and prepare it on the node.

        Raises:
            DeviceError: if the device there refuses it.
            DeviceLostError: if the actor is gone.
        """
        number = call(self._actor, "compile", _stored(part), timeout_s=self._timeout_s)
        return RayExecutable(part, self._actor, number, timeout_s=self._timeout_s)

    def close(self) -> None:
        """End the actor, and with it every part on it."""
        end(self._actor)


class RayExecutable:
    """A part on a node of the cluster. Arrays pass through Ray's object store."""

    def __init__(self, part: Part, actor: Any, number: int, *, timeout_s: float) -> None:
        self.inputs: tuple[Tensor, ...] = part.inputs
        self.outputs: tuple[Tensor, ...] = part.outputs
        self._name = part.name
        self._signature = signature_of(part)
        self._actor = actor
        self._number = number
        self._timeout_s = timeout_s
        self._is_closed = False

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Run once on the node.

        Raises:
            DataError: for inputs that do not fit; nothing was sent.
            DeviceError: if the device there fails, or after ``close``.
            DeviceLostError: if actor or node died, or did not answer in time.
        """
        self._signature.check_inputs(inputs)
        outputs = self._ask("run", dict(inputs))
        # What comes out of the object store is shared memory that cannot be written to.
        return {name: np.array(array) for name, array in outputs.items()}

    def memory(self) -> MemoryUse:
        """Ask the device on the node."""
        use: MemoryUse = self._ask("memory")
        return use

    def close(self) -> None:
        """Free the part on the node, without waiting for it."""
        if not self._is_closed:
            self._is_closed = True
            tell(self._actor, "free", self._number)

    def _ask(self, method: str, *arguments: Any) -> Any:
        if self._is_closed:
            raise DeviceError(f"part {self._name!r} was closed")
        return call(self._actor, method, self._number, *arguments, timeout_s=self._timeout_s)


def _claims(options: Options) -> dict[str, Any]:
    """Return what the actor claims of its node, in Ray's terms."""
    resources = [name for name in options.spec.options if name.startswith(RESOURCE_PREFIX)]
    return {
        "num_cpus": options.amount("num_cpus", 1),
        "num_gpus": options.amount("num_gpus", 0),
        "resources": {name.removeprefix(RESOURCE_PREFIX): options.amount(name, 0) for name in resources},
    }


def _listed(claims: Mapping[str, Any]) -> str:
    counted = {"num_cpus": claims["num_cpus"], "num_gpus": claims["num_gpus"], **claims["resources"]}
    return ", ".join(f"{name} {amount:g}" for name, amount in counted.items())


def _start(spec: DeviceSpec, claims: Mapping[str, Any]) -> Any:
    """Start an actor. It is never restarted, nor is a call repeated, by Ray: the session knows what to do."""
    ray = require("ray", extra="ray")
    name = f"{spec.name}-{secrets.token_hex(4)}"
    try:
        kind = ray.remote(DeviceActor).options(
            **claims, name=name, namespace=NAMESPACE, max_restarts=0, max_task_retries=0
        )
        return kind.remote()
    except Exception as error:  # an amount that Ray does not take, for one
        raise DeviceError(f"device {spec.name!r}: Ray starts no actor for it: {one_line(error)}") from error


def _stored(part: Part) -> Any:
    """Put a part into the object store: every node that asks for it gets it from there."""
    ray = require("ray", extra="ray")
    check_joined()
    try:
        return ray.put(part)
    except Exception as error:  # protobuf's limit of 2 GiB, or a store that is full
        raise DeviceError(f"part {part.name!r} does not go into Ray's object store: {one_line(error)}") from error
