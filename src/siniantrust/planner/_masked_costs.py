"""Which layers are padded, and the cost profile of a model whose trusted side has them computed by a device."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from siniantrust.errors import NoPlanError, PlanError, PolicyError
from siniantrust.graph import Model, Node
from siniantrust.masking.exact import Choice, Costs, JointSum, choose_layers, joint_sums, offerable
from siniantrust.planner._costs import AffineCost, CostProfile, MaskingProfile
from siniantrust.planner._policy import Policy
from siniantrust.trust import Label, may_see

RESIDUE_BYTES = 4
# What pads are predicted to save has errors of this size.
_LEAST_SAVED = 0.1
_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_STATELESS = {"optee": "it runs parts lowered to C and keeps nothing between calls, so that it cannot hold pads"}


@dataclass(frozen=True)
class PaddedNode:
    """A layer under a pad: what it costs where, in seconds for one item.

    ``enclave_s`` is masking, checking and unmasking, ``cross_s`` the way out of the enclave and back, ``move_s`` the
    way to the device and back, ``offline_s`` the preparation in idle time. What layers share that read the same value
    is divided among them, and so is what those share whose results a device adds: their ``exit`` is the sum.
    """

    node: Node
    entry: str
    exit: str
    enclave_s: float
    cross_s: float
    move_s: float
    device_s: float
    inside_s: float
    offline_s: float
    reason: str

    @property
    def latency_s(self) -> float:
        """Seconds of a request."""
        return self.enclave_s + self.cross_s + self.move_s + self.device_s

    @property
    def is_joined(self) -> bool:
        """Whether a device adds what it gives to what another layer gives."""
        return self.exit not in self.node.outputs


def crossing_values(nodes: Iterable[PaddedNode]) -> list[tuple[str, Literal["sent", "received"]]]:
    """Return every value as often as it crosses for the layers of a part, and which way.

    Layers that read the same value have it sent once, but for those whose results are added to others: each such sum
    has its inputs sent for itself, under a pad of its own.
    """
    sent = [each.entry for each in nodes if each.is_joined]
    sent += dict.fromkeys(each.entry for each in nodes if not each.is_joined)
    received = dict.fromkeys(each.exit for each in nodes)
    return [*((name, "sent") for name in sent), *((name, "received") for name in received)]


@dataclass(frozen=True)
class Padding:
    """The layers that are worth a pad, on which devices, and why the other linear ones are not padded.

    ``nodes`` are those of the whole model; ``apart`` holds for those whose results a device adds what they are where
    the sum is in another part, by the index of the sum.
    """

    nodes: Mapping[str, PaddedNode]
    apart: Mapping[str, tuple[int, PaddedNode]]
    devices: tuple[str, ...]
    kept: Mapping[str, str]

    def within(self, indices: Collection[int]) -> list[PaddedNode]:
        """Return the layers of a part that has these nodes of the model."""
        found = [node for node in self.nodes.values() if node.node.index in indices]
        outside = {name: node for name, (index, node) in self.apart.items() if index not in indices}
        return [outside.get(node.node.name, node) for node in found]

    def costs(self, costs: CostProfile) -> CostProfile:
        """Return ``costs`` with the padded nodes' seconds in place of what they take inside."""
        padded = {name: node.latency_s for name, node in self.nodes.items()}
        trusted = costs.trusted.model_copy(update={"latency_s": {**costs.trusted.latency_s, **padded}})
        return costs.model_copy(update={"trusted": trusted})


def devices_under_pads(policy: Policy) -> list[str]:
    """Return the devices that may compute under pads.

    Raises:
        PolicyError: if there is none, or the enclave's provider cannot hold pads.
    """
    if (why := _STATELESS.get(policy.enclave.provider)) is not None:
        raise PolicyError(f"masks: the enclave provider '{policy.enclave.provider}' is refused: {why}; use 'process'")
    cleared = [device.name for device in policy.device if may_see(device.clearance, Label.PADDED)]
    if not cleared:
        raise PolicyError("masks: no device of the policy may see padded values; clear one for 'padded'")
    return cleared


def choose_padding(model: Model, policy: Policy, costs: CostProfile, *, count_fixed: bool) -> Padding:
    """Choose the layers to pad and the devices that may compute them.

    Args:
        model: the model.
        policy: names the devices and their clearances.
        costs: with what layers cost under pads.
        count_fixed: whether what a layer costs whatever its size counts against it; a batch shares it.

    Raises:
        PolicyError: if the enclave's provider cannot hold pads, or no device may see padded values.
        NoPlanError: if the policy refuses layers that cannot be padded, and there are some.
        PlanError: if the costs have nothing on pads, or the model's batch is fixed to several items.
    """
    if costs.masking is None:
        raise PlanError("masks: the costs have nothing on pads; measure them with masks")
    refusing = costs.masking.refusing
    cleared = [name for name in devices_under_pads(policy) if name not in refusing]
    if not cleared:
        why = "; ".join(f"{name}: {reason}" for name, reason in refusing.items())
        raise PlanError(f"masks: no device computes in the arithmetic of pads ({why})")
    if model.batch_symbol is None and any(tensor.shape and tensor.shape[0] != 1 for tensor in model.inputs):
        raise PlanError(
            f"masks: model '{model.name}': its batch is fixed to several items; leave it free, or make it 1"
        )
    kept = {
        node.name: reason
        for node in model.nodes
        if node.op_type in _LINEAR
        and (reason := offerable(model)[node.name] or costs.masking.refused.get(node.name)) is not None
    }
    if kept and policy.masking.not_offerable == "refuse":
        lines = tuple(f"node '{name}': {reason}" for name, reason in kept.items())
        raise NoPlanError(
            f"masks: {lines[0]}, and the policy refuses what cannot be padded (masking.not_offerable)", lines
        )
    known = Costs(**costs.masking.model_dump(include=set(Costs.__dataclass_fields__)))
    if count_fixed:
        choices = choose_layers(model, known, costs.trusted.latency_s, least_saved=_LEAST_SAVED)
    else:  # what was measured inside has its fixed part in it
        choices = choose_layers(model, replace(known, layer_s=0.0, handover_s=0.0))
    wanted = {name: choice for name, choice in choices.items() if choice.offered and name not in kept}
    kept |= {name: choice.reason for name, choice in choices.items() if choice.masked_s and name not in wanted | kept}
    fixed_s = 0.0 if count_fixed else known.layer_s
    order = sorted(cleared, key=lambda name: _on_device_s(model, wanted, costs, name))
    spare = [name for name in policy.serving.takeover if name in cleared and name != order[0]]
    sums = [joint for joint in joint_sums(model) if wanted.keys() >= set(joint.names)]
    joined, plain = (
        _padded(model, wanted, each, costs, costs.masking, device=order[0], fixed_s=fixed_s) for each in (sums, ())
    )
    apart = {name: (joint.node.index, plain[name]) for joint in sums for name in joint.names}
    return Padding(joined, apart, (order[0], *spare), kept)


def _on_device_s(model: Model, names: Iterable[str], costs: CostProfile, device: str) -> float:
    return sum(_device_s(costs, device, name) + _moved_s(model, costs.transfers[device], name) for name in names)


def _device_s(costs: CostProfile, device: str, name: str) -> float:
    """Return the layer's seconds in the arithmetic of pads; of a device that was not timed with it, in float32."""
    measured = costs.masking.device_s.get(device) if costs.masking is not None else None
    return costs.devices[device].latency_s[name] if measured is None else measured[name]


def _sizes(model: Model, name: str) -> tuple[str, str, int, int]:
    """Return a layer's entry and exit, and their bytes as residues."""
    index = next(node.index for node in model.nodes if node.name == name)
    proto = model.proto.graph.node[index]
    entry, exit_ = proto.input[0], proto.output[0]
    return entry, exit_, *(RESIDUE_BYTES * model.tensors[value].elements for value in (entry, exit_))


def _moved_s(model: Model, cost: AffineCost, name: str) -> float:
    _, _, sent, received = _sizes(model, name)
    return cost.base_s + cost.seconds_per_byte_in * sent + cost.seconds_per_byte_out * received


@dataclass(frozen=True)
class _Traffic:
    """A layer's share of what crosses for it and for those it shares an entry or a sum with; ``note`` names the sum.

    ``of_base`` is its share of an exchange, ``of_layer`` of a layer: two make one whose results devices add.
    """

    entry: str
    exit: str
    sent_bytes: float
    received_bytes: float
    of_base: float
    of_layer: float = 1.0
    note: str = ""


def _traffic(model: Model, names: Iterable[str], sums: Sequence[JointSum]) -> dict[str, _Traffic]:
    joined = {branch.node.name: (joint, branch) for joint in sums for branch in joint.branches}
    sizes = {name: _sizes(model, name) for name in names}
    readers = Counter(entry for name, (entry, *_) in sizes.items() if name not in joined)
    found = {}
    for name, (entry, exit_, sent, received) in sizes.items():
        if name in joined:
            joint, branch = joined[name]
            thinned, of = RESIDUE_BYTES * math.prod(branch.shape), len(joint.branches)
            (other,) = (each for each in joint.names if each != name)
            note = f"; devices add what '{other}' gives, and '{joint.exit}' comes back"
            found[name] = _Traffic(entry, joint.exit, thinned, received / of, 1 / of, 1 / of, note)
        else:
            found[name] = _Traffic(entry, exit_, sent / readers[entry], received, 1 / readers[entry])
    return found


def _padded(
    model: Model,
    wanted: Mapping[str, Choice],
    sums: Sequence[JointSum],
    costs: CostProfile,
    masking: MaskingProfile,
    *,
    device: str,
    fixed_s: float,
) -> dict[str, PaddedNode]:
    nodes = {node.name: node for node in model.nodes}
    made = {}
    transfer, crossing = costs.transfers[device], costs.crossing
    for name, crosses in _traffic(model, wanted, sums).items():
        # Into the enclave come the answer and the prepared correction, which is as large.
        cross_s = crossing.seconds_per_byte_in * 2 * crosses.received_bytes
        cross_s += crosses.of_base * crossing.base_s + crossing.seconds_per_byte_out * crosses.sent_bytes
        move_s = transfer.seconds_per_byte_out * crosses.received_bytes
        move_s += crosses.of_base * transfer.base_s + transfer.seconds_per_byte_in * crosses.sent_bytes
        made[name] = PaddedNode(
            node=nodes[name],
            entry=crosses.entry,
            exit=crosses.exit,
            enclave_s=wanted[name].masked_s + crosses.of_layer * fixed_s,
            cross_s=cross_s,
            move_s=move_s,
            device_s=_device_s(costs, device, name),
            inside_s=costs.trusted.latency_s[name],
            offline_s=masking.prepare_s[name],
            reason=wanted[name].reason + crosses.note,
        )
    return made
