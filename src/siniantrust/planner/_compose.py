"""From the chosen candidate to the plan: parts, labelled values, prediction and the sentences that explain them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from siniantrust.graph import Model
from siniantrust.planner._flow import Flow
from siniantrust.planner._plan import ENCLAVE, CostTerm, LabelledValue, PlannedPart, Prediction
from siniantrust.planner._policy import Policy
from siniantrust.planner._predict import Term
from siniantrust.planner._verdict import Verdict
from siniantrust.trust import Label, ThreatModel

CLIENT = "client"


@dataclass(frozen=True)
class Placement:
    """Which part each node belongs to, and where each part runs. ``part_of`` is by node index, in order 0, 1, 2."""

    part_of: tuple[int, ...]
    devices: tuple[str, ...]
    reasons: tuple[str, ...]

    def name(self, part: int) -> str:
        """Return the name of a part: part1, part2, part3."""
        return f"part{part + 1}"


def place(flow: Flow, *, start: int, end: int, device: str, reasons: Sequence[str]) -> Placement:
    """Give every node its part: 0 up to the first cut, 1 on ``device``, 2 after the last cut."""
    part_of = tuple(0 if mask >> start & 1 else 1 if mask >> end & 1 else 2 for mask in flow.node_masks)
    devices = (ENCLAVE, device) if end == flow.whole else (ENCLAVE, device, ENCLAVE)
    return Placement(part_of, devices, tuple(reasons))


def crossing_values(
    model: Model, placement: Placement
) -> tuple[dict[str, int | None], dict[str, tuple[int, ...]], list[str]]:
    """Return who makes each value (None: the client), which other parts read it, and which leave the model."""
    maker: dict[str, int | None] = {tensor.name: None for tensor in model.inputs}
    readers: dict[str, set[int]] = {}
    for node, part in zip(model.nodes, placement.part_of, strict=True):
        for name in node.inputs:
            if name in maker and maker[name] != part:
                readers.setdefault(name, set()).add(part)
        for name in filter(None, node.outputs):
            maker[name] = part
    for tensor in model.inputs:
        if tensor.name not in model.consumers:
            readers[tensor.name] = {0}  # an input that nothing reads belongs to the first part
    leaving = [tensor.name for tensor in model.outputs]
    for name in leaving:
        maker.setdefault(name, len(placement.devices) - 1)  # a constant that is an output comes from the last part
    crossing = [name for name in maker if name in readers or name in set(leaving)]
    return (
        {name: maker[name] for name in crossing},
        {name: tuple(sorted(readers.get(name, ()))) for name in crossing},
        leaving,
    )


def compose_parts(model: Model, placement: Placement) -> tuple[PlannedPart, ...]:
    """Describe the parts: their nodes, and the values that enter and leave each."""
    maker, readers, leaving = crossing_values(model, placement)
    parts = []
    for part, device in enumerate(placement.devices):
        nodes = [node for node, of in zip(model.nodes, placement.part_of, strict=True) if of == part]
        outputs = [name for name, made in maker.items() if made == part and (readers[name] or name in leaving)]
        parts.append(
            PlannedPart(
                name=placement.name(part),
                device=device,
                trusted=device == ENCLAVE,
                nodes=tuple(node.name for node in nodes),
                inputs=tuple(name for name in maker if part in readers[name]),
                outputs=tuple(outputs),
                flops=sum(node.flops for node in nodes),
                parameter_bytes=sum(node.parameter_bytes for node in nodes),
                reason=placement.reasons[part],
            )
        )
    return tuple(parts)


def compose_values(
    flow: Flow, placement: Placement, policy: Policy, *, verdict: Verdict | None, audit_id: str | None
) -> tuple[LabelledValue, ...]:
    """Label every value that crosses, enters or leaves.

    What an untrusted part makes from obscured values is obscured as well: it is computed from them.
    """
    model = flow.model
    maker, readers, leaving = crossing_values(model, placement)
    exposed = any(
        made is None and name in flow.private and placement.devices[part] != ENCLAVE
        for name, made in maker.items()
        for part in readers[name]
    )
    obscured = verdict is not None and verdict.refusal is None and not exposed
    protected = set(leaving) if policy.threat_model is ThreatModel.OUTPUT_PRIVACY else set()
    values = []
    for name, made in maker.items():
        outside = [part for part in (made, *readers[name]) if part is not None and placement.devices[part] != ENCLAVE]
        if name in protected:
            label = Label.SECRET
        elif name not in flow.private:
            label = Label.PUBLIC
        elif made is not None and outside and obscured:
            label = Label.OBSCURED
        else:
            label = Label.SECRET
        targets = [placement.name(part) for part in readers[name]]
        evidence = verdict if label is Label.OBSCURED else None
        values.append(
            LabelledValue(
                tensor=name,
                label=label,
                source=CLIENT if made is None else placement.name(made),
                targets=(*targets, CLIENT) if name in leaving else tuple(targets),
                size_bytes=flow.size(name),
                leakage_upper=evidence.leakage_upper if evidence else None,
                audit_id=audit_id if evidence else None,
            )
        )
    return tuple(values)


def compose_prediction(terms: Sequence[Term], position: int) -> Prediction:
    """Turn the terms of one candidate into a prediction."""
    stages: Mapping[str, float] = {
        stage: sum(float(term.latency_s[position]) for term in terms if term.stage == stage)
        for stage in ("enclave", "device")
    }
    return Prediction(
        latency_s=sum(stages.values()),
        period_s=max(stages.values()),
        terms=tuple(
            CostTerm(what=term.what, where=term.where, latency_s=float(term.latency_s[position]), basis=term.basis)
            for term in terms
        ),
    )
