"""From the chosen candidate to the plan: parts, labelled values, prediction and the sentences that explain them."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Which part each node belongs to (by node index), where each part runs, and which devices hold it as well."""

    part_of: tuple[int, ...]
    devices: tuple[str, ...]
    reasons: tuple[str, ...]
    replicas: tuple[tuple[str, ...], ...]

    def name(self, part: int) -> str:
        """Return the name of a part: part1, part2, part3."""
        return f"part{part + 1}"


def place(
    flow: Flow, *, boundaries: Sequence[int], devices: Sequence[Sequence[str]], reasons: Sequence[str]
) -> Placement:
    """Give every node its part: 0 up to the first boundary, on ``devices[0]`` up to the second, and so on.

    What is behind the last boundary, unless that is the whole model, is in the enclave again.
    """
    held = [(ENCLAVE,), *devices, *([] if boundaries[-1] == flow.whole else [(ENCLAVE,)])]
    part_of = tuple(
        next((part for part, boundary in enumerate(boundaries) if mask >> boundary & 1), len(boundaries))
        for mask in flow.node_masks
    )
    return Placement(
        part_of, tuple(names[0] for names in held), tuple(reasons), tuple(tuple(names[1:]) for names in held)
    )


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
                replicas=placement.replicas[part],
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


def compose_prediction(terms: Sequence[Term], position: int, *, periods_s: Sequence[float] = ()) -> Prediction:
    """Turn the terms of one candidate into a prediction.

    ``periods_s`` are the untrusted parts' periods, where replicas share their requests; else each is its latency.
    """
    stages: dict[str, float] = {}
    for term in terms:
        stages[term.where] = stages.get(term.where, 0.0) + float(term.latency_s[position])
    periods = (stages.get(ENCLAVE, 0.0), *periods_s) if periods_s else stages.values()
    return Prediction(
        latency_s=sum(stages.values()),
        period_s=max(periods),
        terms=tuple(
            CostTerm(what=term.what, where=term.where, latency_s=float(term.latency_s[position]), basis=term.basis)
            for term in terms
        ),
    )
