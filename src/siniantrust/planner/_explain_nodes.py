"""From a plan and the costs that it was made with to an answer for every node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from siniantrust._files import sha256_bytes
from siniantrust.errors import PlanError
from siniantrust.graph import CutSet, Model, Node
from siniantrust.planner._costs import CostProfile
from siniantrust.planner._exits import Exits
from siniantrust.planner._explanation import Explanation, NodeExplanation, NodeRun
from siniantrust.planner._flow import Flow, trace_flow
from siniantrust.planner._plan import ENCLAVE, PaddedLayer, Plan, PlannedPart
from siniantrust.planner._plan_file import dump_plan
from siniantrust.planner._policy import DevicePolicy
from siniantrust.trust import Label, may_see

CHEAPEST = "cheapest here"
NOT_ALONE = "faster elsewhere, but no allowed split that uses this is better"
UNDER_PADS = "under a one-time pad; its seconds are the enclave's and the device's together"
NOT_PADDED = "not worth a pad, or cannot be padded"
# These take turns from one node to the next, with no border between parts or devices.
_BY_COST = frozenset({CHEAPEST, NOT_ALONE})


def explain_nodes(model: Model, cuts: CutSet, plan: Plan, costs: CostProfile) -> Explanation:
    """Say of every node where it runs, what it costs there and elsewhere, how private it is, and why it is there.

    Args:
        model: the model.
        cuts: its cuts, which the plan's alternatives name.
        plan: the plan.
        costs: those that the plan was made with.

    Raises:
        PlanError: if plan or costs belong to another model, or the costs lack a device.
    """
    _check(model, plan, costs)
    flow = trace_flow(model, {cut.id: cut.tensors for cut in cuts.cuts}, public_inputs=plan.policy.public_inputs)
    part_of = {name: part for part in plan.parts for name in part.nodes}
    judge = _Judge(flow, plan, costs, Exits(flow, plan))
    nodes = tuple(judge.explain(node, part_of[node.name]) for node in model.nodes)
    return Explanation(
        model_name=model.name,
        model_sha256=model.sha256,
        plan_sha256=sha256_bytes(dump_plan(plan)),
        basis={ENCLAVE: costs.trusted.basis}
        | {each.name: costs.devices[each.name].basis for each in plan.policy.device},
        runs=tuple(_runs(nodes)),
        nodes=nodes,
    )


def _check(model: Model, plan: Plan, costs: CostProfile) -> None:
    for name, found in (("plan", plan.model_sha256), ("costs", costs.model_sha256)):
        if found != model.sha256:
            raise PlanError(
                f"{name}: made for model {found[:12]}, but the model is {model.sha256[:12]}; plan and measure again"
            )
    for device in plan.policy.device:
        if device.name not in costs.devices:
            raise PlanError(f"costs: nothing is known of device '{device.name}'; measure again with it")


def _runs(nodes: Sequence[NodeExplanation]) -> Iterator[NodeRun]:
    """Put consecutive nodes together where only the figures differ, or which place is the cheapest."""

    def answers(row: NodeExplanation) -> tuple[object, ...]:
        reason = "" if row.reason in _BY_COST else row.reason
        return row.part, row.device, row.label, reason, sorted(row.refused.items())

    for _, group in groupby(nodes, key=answers):
        rows = list(group)
        everywhere = [name for name in rows[0].elsewhere_s if all(name in row.elsewhere_s for row in rows)]
        reasons = Counter(row.reason for row in rows).most_common()
        yield NodeRun(
            first=rows[0].node,
            last=rows[-1].node,
            count=len(rows),
            operators=dict(Counter(row.operator for row in rows).most_common()),
            part=rows[0].part,
            device=rows[0].device,
            latency_s=sum(row.latency_s for row in rows),
            elsewhere_s={name: sum(row.elsewhere_s[name] for row in rows) for name in everywhere},
            refused=rows[0].refused,
            label=rows[0].label,
            reasons=tuple(
                (reason if count == len(rows) else f"{reason} ({count} of {len(rows)})")
                + (f"; {rows[-1].detail}" if len(reasons) == 1 and rows[-1].detail else "")
                for reason, count in reasons
            ),
        )


@dataclass(frozen=True)
class _Judge:
    """Answers for one node after the other."""

    flow: Flow
    plan: Plan
    costs: CostProfile
    exits: Exits

    def explain(self, node: Node, part: PlannedPart) -> NodeExplanation:
        """Say everything about ``node``, which is in ``part``."""
        padded = self._padded.get(node.name)
        if padded is not None and self.plan.masking is not None:
            return NodeExplanation(
                node=node.name,
                operator=node.op_type,
                part=part.name,
                device=self.plan.masking.devices[0],
                latency_s=padded.masked_s + padded.device_s,
                elsewhere_s={ENCLAVE: padded.inside_s},
                refused={},
                label=Label.PADDED,
                reason=UNDER_PADS,
                detail=padded.reason,
            )
        names = [ENCLAVE, *(device.name for device in self.plan.policy.device)]
        refused = {
            device.name: why
            for device in self.plan.policy.device
            if device.name not in (part.device, *part.replicas)
            and (why := self._refusal(node, part, device)) is not None
        }
        here_s = self._seconds(node, part.device)
        elsewhere_s = {name: self._seconds(node, name) for name in names if name != part.device and name not in refused}
        reason, detail = self._reason(node, part, here_s, elsewhere_s, refused)
        if self.plan.masking is not None and (kept := self.plan.masking.kept.get(node.name)) is not None:
            reason, detail = NOT_PADDED, kept
        return NodeExplanation(
            node=node.name,
            operator=node.op_type,
            part=part.name,
            device="+".join((part.device, *part.replicas)),
            latency_s=here_s,
            elsewhere_s=elsewhere_s,
            refused=refused,
            label=self._label(node, part),
            reason=reason,
            detail=detail,
        )

    def _reason(
        self,
        node: Node,
        part: PlannedPart,
        here_s: float,
        elsewhere_s: Mapping[str, float],
        refused: Mapping[str, str],
    ) -> tuple[str, str]:
        devices = len(self.plan.policy.device)
        if part.trusted:
            if devices and len(refused) == devices:
                return "no device may have it", ""
            if part is not self.plan.parts[0]:
                return "behind the last cut: the outputs are secret", ""
            return self.exits.before(node)
        if len(refused) == devices - 1 > 0:
            return "no other device may have it", ""
        faster = min(elsewhere_s, key=lambda name: elsewhere_s[name])
        if here_s <= elsewhere_s[faster]:
            return CHEAPEST, ""
        return NOT_ALONE, f"{elsewhere_s[faster] * 1e3:.3g} ms on '{faster}'"

    def _refusal(self, node: Node, part: PlannedPart, device: DevicePolicy) -> str | None:
        """Say why ``device`` may not have the node beside what it has; None if nothing speaks against it for sure."""
        unsupported = self.costs.devices[device.name].unsupported.get(node.name)
        if unsupported is not None:
            return f"cannot run it: {unsupported}"
        if not part.trusted and not self.flow.private.isdisjoint(node.inputs):
            read = self._part_labels[part.name]
            if not may_see(device.clearance, read):
                return f"cleared for {device.clearance.value} values, and it reads {read.value} ones"
        held = sum(each.parameter_bytes for each in self.plan.parts if device.name in (each.device, *each.replicas))
        needed = sum(self.flow.size(name) for name in {*node.inputs, *node.outputs}) + node.parameter_bytes
        if device.memory_bytes is not None and held + needed > device.memory_bytes:
            return f"its memory of {device.memory_bytes:,} bytes would be exceeded"
        return None

    def _seconds(self, node: Node, place: str) -> float:
        return (self.costs.trusted if place == ENCLAVE else self.costs.devices[place]).latency_s[node.name]

    @cached_property
    def _padded(self) -> Mapping[str, PaddedLayer]:
        return {layer.node: layer for layer in self.plan.masking.layers} if self.plan.masking is not None else {}

    @cached_property
    def _value_labels(self) -> Mapping[str, Label]:
        return {value.tensor: value.label for value in self.plan.values}

    @cached_property
    def _part_labels(self) -> Mapping[str, Label]:
        """Per part the most private label that it reads."""
        return {
            part.name: _most_private(value.label for value in self.plan.values if part.name in value.targets)
            for part in self.plan.parts
        }

    def _label(self, node: Node, part: PlannedPart) -> Label:
        """Return the label of the most private output: as the plan says of what crosses, else as it is derived."""
        derived = Label.SECRET if part.trusted else self._part_labels[part.name]
        return _most_private(
            self._value_labels.get(name, derived if name in self.flow.private else Label.PUBLIC)
            for name in filter(None, node.outputs)
        )


def _most_private(labels: Iterable[Label]) -> Label:
    return max(labels, key=lambda label: sum(may_see(label, other) for other in Label), default=Label.PUBLIC)
