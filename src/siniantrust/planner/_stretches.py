"""What each device takes for the nodes between one boundary and every later one, and whether it may have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from siniantrust.planner._costs import AffineCost, CostProfile
from siniantrust.planner._flow import BoolArray, FloatArray, Flow, IndexArray
from siniantrust.planner._memory import peak_bytes_between
from siniantrust.planner._policy import DevicePolicy, Policy
from siniantrust.planner._predict import exchange_s
from siniantrust.planner._traffic import bytes_through
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
class Stretches:
    """The nodes from one boundary to each of ``ends``: ``latency_s[kind, end]``, infinite where it may not be."""

    ends: IndexArray
    latency_s: FloatArray


@dataclass(frozen=True)
class StretchTable:
    """Costs of stretches between any two boundaries of ``flow``, one boundary at a time."""

    flow: Flow
    policy: Policy
    costs: CostProfile

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

    def behind(self, start: int, within: int) -> Stretches:
        """Return the stretches from ``start`` to every later boundary in the mask ``within``."""
        flow = self.flow
        later = (flow.contained_in[start] | 1 << flow.whole) & within
        ends = flow.positions(later)
        ends = ends[flow.nodes_inside[ends] > flow.nodes_inside[start]]
        bytes_in, bytes_out = bytes_through(flow, start, ends)
        latency_s = np.full((len(self.kinds), len(ends)), np.inf)
        for row, kind in zip(latency_s, self.kinds, strict=True):
            moved_s = exchange_s(kind.transfer, bytes_in, bytes_out)
            # Differences of running sums: rounding may take a zero below zero.
            compute_s = np.maximum(kind.compute_s[ends] - kind.compute_s[start], 0.0)
            np.copyto(row, moved_s + compute_s, where=self._allowed(kind, start, ends))
        return Stretches(ends, latency_s)

    def _allowed(self, kind: Kind, start: int, ends: IndexArray) -> BoolArray:
        allowed: BoolArray = kind.blocked[ends] <= kind.blocked[start]
        if not may_see(kind.clearance, Label.OBSCURED):
            allowed &= self._private[ends] <= self._private[start]
        if kind.memory_bytes is not None:
            allowed &= peak_bytes_between(self.flow, start, ends, limit_bytes=kind.memory_bytes) <= kind.memory_bytes
        return allowed
