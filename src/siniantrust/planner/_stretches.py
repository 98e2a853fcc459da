"""What each device takes for the nodes between two boundaries, and whether it may have them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from siniantrust.planner._costs import AffineCost, CostProfile
from siniantrust.planner._flow import BoolArray, FloatArray, Flow, IndexArray
from siniantrust.planner._memory import Memory
from siniantrust.planner._policy import DevicePolicy, Policy
from siniantrust.planner._predict import exchange_s
from siniantrust.planner._traffic import answered_bytes, bytes_through, entering_bytes
from siniantrust.trust import Label, may_see


@dataclass(frozen=True)
class Kind:
    """Devices that nothing tells apart: the same costs, clearance, memory and operators."""

    names: tuple[str, ...]
    transfer: AffineCost
    compute_s: FloatArray
    blocked: FloatArray
    clearance: Label
    memory_bytes: int | None


@dataclass(frozen=True)
class StretchTable:
    """Costs of stretches between any two boundaries of ``flow``."""

    flow: Flow
    policy: Policy
    costs: CostProfile
    memory: Memory

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """The devices of the policy, alike ones together, in the policy's order."""
        groups: dict[tuple[object, ...], list[DevicePolicy]] = {}
        for device in self.policy.device:
            groups.setdefault(self._traits(device), []).append(device)
        return tuple(self._kind(devices) for devices in groups.values())

    def _traits(self, device: DevicePolicy) -> tuple[object, ...]:
        compute, transfer = self.costs.devices[device.name], self.costs.transfers[device.name]
        seconds = (transfer.base_s, transfer.seconds_per_byte_in, transfer.seconds_per_byte_out)
        nodes = tuple(compute.latency_s[node.name] for node in self.flow.model.nodes)
        return seconds, nodes, frozenset(compute.unsupported), device.clearance, device.memory_bytes

    def _kind(self, devices: Sequence[DevicePolicy]) -> Kind:
        first = devices[0]
        compute, nodes = self.costs.devices[first.name], self.flow.model.nodes
        return Kind(
            names=tuple(device.name for device in devices),
            transfer=self.costs.transfers[first.name],
            compute_s=self.flow.summed([compute.latency_s[node.name] for node in nodes]),
            blocked=self.flow.summed([node.name in compute.unsupported for node in nodes]),
            clearance=first.clearance,
            memory_bytes=first.memory_bytes,
        )

    @cached_property
    def _private(self) -> FloatArray:
        """Number of nodes in every prefix that read what depends on a secret input."""
        flow = self.flow
        return flow.summed([not flow.private.isdisjoint(node.inputs) for node in flow.model.nodes])

    @cached_property
    def entering_bytes(self) -> FloatArray:
        """Per boundary, the bytes that the nodes behind it read."""
        return entering_bytes(self.flow)

    @cached_property
    def answered_bytes(self) -> FloatArray:
        """Per boundary, the bytes of the model's outputs that are made before it."""
        return answered_bytes(self.flow)

    @cached_property
    def leaving_bytes(self) -> FloatArray:
        """Per boundary, the bytes made before it that nodes behind it or the client read."""
        return self.flow.crossing_bytes + self.answered_bytes

    def limits(self, kind: Kind) -> Iterator[tuple[FloatArray, float]]:
        """Yield what grows along the boundaries, and by how much it may grow in a stretch that ``kind`` may have."""
        yield kind.blocked, 0.0
        if not may_see(kind.clearance, Label.OBSCURED):
            yield self._private, 0.0
        if kind.memory_bytes is not None:
            yield self.flow.weights, kind.memory_bytes

    def behind(self, start: int, ends: IndexArray) -> FloatArray:
        """Return the seconds of the stretches from ``start`` to boundaries that hold it: per kind and end."""
        moved_bytes = bytes_through(self.flow, start, ends)
        nested = np.ones((1, len(ends)), dtype=np.bool_)
        return self.seconds(np.asarray([start], np.intp), ends, moved_bytes, nested, clear=False)[:, 0]

    def seconds(
        self,
        starts: IndexArray,
        ends: IndexArray,
        moved_bytes: tuple[FloatArray, FloatArray],
        nested: BoolArray,
        *,
        clear: bool,
    ) -> FloatArray:
        """Return the seconds per kind, start and end; infinite where a kind may not have the stretch.

        Args:
            starts: the first boundaries.
            ends: the last boundaries.
            moved_bytes: bytes in and out, per start and end.
            nested: which pairs are a stretch.
            clear: whether nothing that crosses a start crosses an end.
        """
        seconds = np.full((len(self.kinds), len(starts), len(ends)), np.inf)
        for found, kind in zip(seconds, self.kinds, strict=True):
            allowed = nested.copy()
            for amount, most in self.limits(kind):
                allowed &= amount[ends] - amount[starts, None] <= most
            if kind.memory_bytes is not None:
                allowed &= self.memory.fits(starts, ends, allowed, limit_bytes=kind.memory_bytes, clear=clear)
            # Differences of running sums: rounding may take a zero below zero.
            compute_s = np.maximum(kind.compute_s[ends] - kind.compute_s[starts, None], 0.0)
            np.copyto(found, exchange_s(kind.transfer, *moved_bytes) + compute_s, where=allowed)
        return seconds
