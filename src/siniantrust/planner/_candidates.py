"""All placements from one first cut to one device: their cost, and why the policy refuses them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from siniantrust.planner._costs import CostProfile
from siniantrust.planner._flow import BoolArray, FloatArray, Flow, IndexArray, union
from siniantrust.planner._memory import Memory
from siniantrust.planner._plan import ENCLAVE
from siniantrust.planner._policy import DevicePolicy, Policy
from siniantrust.planner._predict import Compute, Term, enclave_terms, split_terms, trusted_terms
from siniantrust.planner._spread import Spread, Stage
from siniantrust.planner._traffic import measure_traffic
from siniantrust.planner._verdict import Verdict
from siniantrust.trust import Label, ThreatModel, may_see


@dataclass(frozen=True)
class Row:
    """The candidates that share a first cut and a device; all arrays run over ``ends`` (indices of last cuts)."""

    start: int
    device: str
    ends: tuple[int, ...]
    latency_s: FloatArray
    period_s: FloatArray
    trusted_flops_share: FloatArray
    boundary_bytes: FloatArray
    refusals: tuple[str | None, ...]
    device_s: FloatArray
    enclave_s: FloatArray

    def spread(self, position: int) -> Spread:
        """Return one of the candidates as a placement."""
        device_s = float(self.device_s[position])
        stage = Stage(self.start, self.ends[position], (self.device,), device_s, device_s)
        return Spread((stage,), float(self.latency_s[position]), float(self.period_s[position]))


@dataclass(frozen=True)
class CandidateTable:
    """Everything about a model, a policy and costs that candidates share, worked out once, on first use.

    ``offered`` are the ids of the cuts to place; the flow may know more, because the audit does.
    """

    flow: Flow
    policy: Policy
    verdicts: Sequence[Verdict]
    costs: CostProfile
    offered: frozenset[str]

    @cached_property
    def splits(self) -> tuple[int, ...]:
        """Indices of the cuts to place: those with nodes on both sides."""
        inside = self.flow.nodes_inside
        return tuple(
            index
            for index, cut_id in enumerate(self.flow.ids)
            if cut_id in self.offered and 0 < inside[index] < inside[self.flow.whole]
        )

    @cached_property
    def trusted_terms(self) -> list[Term]:
        """The predicted terms of the whole model in the enclave."""
        model = self.flow.model
        return trusted_terms(
            self.costs,
            in_bytes=sum(tensor.size_bytes for tensor in model.inputs),
            out_bytes=sum(tensor.size_bytes for tensor in model.outputs),
            compute_s=float(self.trusted_s[self.flow.whole]),
        )

    @cached_property
    def flops(self) -> FloatArray:
        """Floating-point operations of every prefix."""
        return self.flow.summed([node.flops for node in self.flow.model.nodes])

    @cached_property
    def memory(self) -> Memory:
        """What parts of the model need."""
        return Memory(self.flow)

    @cached_property
    def trusted_s(self) -> FloatArray:
        """Seconds of every prefix in the enclave."""
        return self.flow.summed([self.costs.trusted.latency_s[node.name] for node in self.flow.model.nodes])

    @cached_property
    def _enclave_blocked(self) -> FloatArray:
        """Number of nodes in every prefix that the enclave cannot run."""
        unsupported = self.costs.trusted.unsupported
        return self.flow.summed([node.name in unsupported for node in self.flow.model.nodes])

    def enclave_blocked(self, start: int, ends: IndexArray) -> BoolArray:
        """Say for which of ``ends`` the enclave cannot run a node before ``start`` or behind that end."""
        blocked = self._enclave_blocked
        found: BoolArray = blocked[start] + blocked[self.flow.whole] - blocked[ends] > 0
        return found

    def enclave_lack(self, start: int, end: int) -> str:
        """Say what the enclave cannot run of the nodes before ``start`` and behind ``end``."""
        blocked, masks = self._enclave_blocked, self.flow.node_masks
        count = int(blocked[start] + blocked[self.flow.whole] - blocked[end])
        name = next(name for index, name in self._lacking if masks[index] >> start & 1 or not masks[index] >> end & 1)
        return (
            f"the enclave cannot run {count} of these nodes, such as '{name}': {self.costs.trusted.unsupported[name]}"
        )

    @cached_property
    def _lacking(self) -> list[tuple[int, str]]:
        """Index and name of the nodes that the enclave cannot run."""
        unsupported = self.costs.trusted.unsupported
        return [(node.index, node.name) for node in self.flow.model.nodes if node.name in unsupported]

    def compute(self, device: str) -> Compute:
        """Seconds of every prefix in the enclave and on ``device``."""
        cost = self.costs.devices[device]
        nodes = self.flow.model.nodes
        return Compute(self.trusted_s, self.flow.summed([cost.latency_s[node.name] for node in nodes]))

    def enclave_peak_bytes(self, start: int, ends: IndexArray) -> FloatArray:
        """Peak bytes of the trusted parts, which share one enclave: both hold their weights while one computes."""
        before, after = self.memory.per_cut
        last_weights = self.flow.weights[self.flow.whole] - self.flow.weights[ends]
        peak: FloatArray = np.maximum(before[start] + last_weights, after[ends] + self.flow.weights[start])
        return peak

    def rows(self) -> list[Row]:
        """Return the candidates of every first cut on every device: by cut, then in the policy's order."""
        prepared = [(device, self.compute(device.name), self._blocked(device)) for device in self.policy.device]
        return [row for start in self.splits for row in self._rows_from(start, prepared)]

    def enclave_s(self, start: int, ends: IndexArray) -> FloatArray:
        """Return the seconds of the trusted parts before ``start`` and behind each of ``ends``."""
        traffic = measure_traffic(self.flow, start, ends)
        first, last = enclave_terms(traffic, self.trusted_s, self.costs, start=start, ends=ends, parts=3)
        return sum((term.latency_s for term in (*first, *last)), np.zeros(len(ends)))

    def may_surround(self, start: int, ends: IndexArray, *, clearance: Label) -> BoolArray:
        """Say for which last cuts devices that are cleared for ``clearance`` may be between, and the enclave around."""
        allowed: BoolArray = self.enclave_peak_bytes(start, ends) <= self.policy.enclave.memory_bytes
        allowed &= ~self.enclave_blocked(start, ends)
        for holds, _ in self._label_refusals(start, ends, DevicePolicy(name="any", clearance=clearance)):
            allowed &= ~holds
        return allowed

    def _blocked(self, device: DevicePolicy) -> FloatArray:
        """Count, in every prefix, the nodes that the device cannot run."""
        unsupported = self.costs.devices[device.name].unsupported
        return self.flow.summed([node.name in unsupported for node in self.flow.model.nodes])

    def ends(self, start: int) -> IndexArray:
        """List the last cuts: the whole model, and for output privacy every larger prefix before it."""
        flow = self.flow
        last = [flow.whole]
        if self.policy.threat_model is ThreatModel.OUTPUT_PRIVACY:
            larger = (end for end in self.splits if flow.contained_in[start] >> end & 1)
            last = [*(end for end in larger if not flow.contained_in[end] >> start & 1), flow.whole]
        return np.asarray(last, dtype=np.intp)

    def _rows_from(self, start: int, prepared: Sequence[tuple[DevicePolicy, Compute, FloatArray]]) -> Iterator[Row]:
        flow = self.flow
        every = self.ends(start)
        peak = self.enclave_peak_bytes(start, every)
        traffic_of = {len(every): measure_traffic(flow, start, every)}
        for device, compute, blocked in prepared:
            ends = every
            if self._refused_by_audit(start, device) and self._private_read(start, ends).all():
                ends = ends[-1:]
            refusals = self._refusals(start, ends, device, blocked, peak[-len(ends) :])
            if len(set(refusals)) == 1 and refusals[0] is not None:
                ends, refusals = ends[-1:], refusals[-1:]  # one line for the first cut says it all
            if len(ends) not in traffic_of:
                traffic_of[len(ends)] = measure_traffic(flow, start, ends)
            traffic = traffic_of[len(ends)]
            terms = split_terms(traffic, compute, self.costs, start=start, ends=ends, device=device.name)
            enclave_s = sum((term.latency_s for term in terms if term.where == ENCLAVE), np.zeros(len(ends)))
            device_s = sum((term.latency_s for term in terms if term.where != ENCLAVE), np.zeros(len(ends)))
            total = max(self.flops[flow.whole], 1.0)
            yield Row(
                start=start,
                device=device.name,
                ends=tuple(ends.tolist()),
                latency_s=enclave_s + device_s,
                period_s=np.maximum(enclave_s, device_s),
                trusted_flops_share=1.0 - (self.flops[ends] - self.flops[start]) / total,
                boundary_bytes=traffic.first_to_device + traffic.device_to_last,
                refusals=refusals,
                device_s=device_s,
                enclave_s=enclave_s,
            )

    def _refusals(
        self, start: int, ends: IndexArray, device: DevicePolicy, blocked: FloatArray, enclave_bytes: FloatArray
    ) -> tuple[str | None, ...]:
        """Give the first reason that holds, per end, or None."""
        found: list[str | None] = [None] * len(ends)
        for holds, reason in (
            *self._label_refusals(start, ends, device),
            *self._resource_refusals(start, ends, device, blocked, enclave_bytes),
        ):
            for position in np.flatnonzero(holds) if holds.any() else ():
                if found[position] is None:
                    found[position] = reason if isinstance(reason, str) else reason[position]
        return tuple(found)

    def _private_read(self, start: int, ends: IndexArray) -> BoolArray:
        """Say for which ends the device reads a value of the first part that depends on a secret input."""
        flow = self.flow
        seen = union(flow.read_between(name, start) for name in flow.crossing[start] if name in flow.private)
        return flow.at(seen, ends)

    def _refused_by_audit(self, start: int, device: DevicePolicy) -> bool:
        return self.verdicts[start].refusal is not None and not may_see(device.clearance, Label.SECRET)

    def _label_refusals(
        self, start: int, ends: IndexArray, device: DevicePolicy
    ) -> list[tuple[BoolArray, str | list[str]]]:
        flow = self.flow
        if may_see(device.clearance, Label.SECRET):
            return []
        reasons: list[tuple[BoolArray, str | list[str]]] = []
        for tensor in flow.model.inputs:
            if tensor.name in flow.private:
                seen = flow.at(flow.read_between(tensor.name, start), ends)
                reasons.append((seen, f"input '{tensor.name}' is secret, and '{device.name}' would read it"))
        seen = self._private_read(start, ends)
        refusal = self.verdicts[start].refusal
        if refusal is not None:
            reasons.append((seen, refusal))
        elif not may_see(device.clearance, Label.OBSCURED):
            reasons.append((seen, f"'{device.name}' is cleared for {device.clearance.value} values, not obscured ones"))
        if self.policy.threat_model is ThreatModel.OUTPUT_PRIVACY:
            for tensor in flow.model.outputs:
                made = flow.made_in(tensor.name)
                outside = flow.at(0 if made >> start & 1 else made, ends)
                reasons.append((outside, f"output '{tensor.name}' is secret, and '{device.name}' would make it"))
        return reasons

    def _resource_refusals(
        self, start: int, ends: IndexArray, device: DevicePolicy, blocked: FloatArray, enclave_bytes: FloatArray
    ) -> list[tuple[BoolArray, str | list[str]]]:
        reasons: list[tuple[BoolArray, str | list[str]]] = []
        limit = self.policy.enclave.memory_bytes
        if (enclave_bytes > limit).any():
            memory = [
                f"the trusted side needs {need:,.0f} bytes, but the enclave has {limit:,}" for need in enclave_bytes
            ]
            reasons.append((enclave_bytes > limit, memory))
        lacking = self.enclave_blocked(start, ends)
        if lacking.any():
            # Python's own integers: a node's mask has more bits than numpy's.
            pairs = zip(ends.tolist(), lacking, strict=True)
            lacks = [self.enclave_lack(start, end) if lacks else "" for end, lacks in pairs]
            reasons.append((lacking, lacks))
        if device.memory_bytes is not None:
            held = self.memory.between(start, ends, limit_bytes=device.memory_bytes)
            text = f"part 2 needs more memory than the {device.memory_bytes:,} bytes of '{device.name}'"
            reasons.append((held > device.memory_bytes, text))
        unsupported = self.costs.devices[device.name].unsupported
        if unsupported:
            node, why = next(iter(unsupported.items()))
            text = f"'{device.name}' cannot run {len(unsupported)} of the model's nodes, such as '{node}': {why}"
            reasons.append((blocked[ends] > blocked[start], text))
        return reasons
