"""What the page says first: is what leaves the enclave within the policy's bound, and what is the enclave worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from siniantrust.report._audit_input import DOWNSTREAM, CutRead
from siniantrust.report._cuts import CutView
from siniantrust.report._load import Sources
from siniantrust.report._plan_input import ValueRead
from siniantrust.report._text import METRIC_MEANINGS, budget_words, clean, in_policy_order, metric_title, score

Status = Literal["within", "over", "open", "unknown", "nothing"]
Badge = Literal["hardware", "emulated", "simulated", "unknown"]

_BADGES: dict[Badge, tuple[str, str]] = {
    "hardware": (
        "This enclave's claims come from HARDWARE",
        "The processor's own evidence stands behind them; side channels of that hardware are out of scope.",
    ),
    "emulated": (
        "This enclave is EMULATED: whoever runs the emulator can read what is inside",
        "It follows the real protocol, for trying it out. Do not put private data in it on a machine you do not own.",
    ),
    "simulated": (
        "This enclave is SIMULATED: it does not protect against the machine's owner",
        "It is an isolated process of the ordinary system. Good for measuring and testing, not for secrets.",
    ),
    "unknown": (
        "No run was given: nothing is known about the enclave",
        "Whether its claims come from hardware is only known once it has been launched.",
    ),
}


_NOISE = "What it sees of them is uniform noise, whatever it knows and however long it learns."


@dataclass(frozen=True)
class MetricView:
    """One metric at the cut the untrusted side sees. ``bound`` is None where the policy sets none."""

    metric: str
    title: str
    meaning: str
    attack: str
    mean: float
    worst_5pct: float
    upper: float
    bound: float | None


@dataclass(frozen=True)
class Verdict:
    """The header: ``status`` colours it; ``headline`` and ``detail`` are sentences; ``badge`` rates the enclave."""

    status: Status
    headline: str
    detail: str
    metrics: tuple[MetricView, ...]
    seen: tuple[ValueRead, ...]
    badge: Badge
    badge_title: str
    badge_detail: str


def judge(sources: Sources, cuts: Sequence[CutView]) -> Verdict:
    """Return the verdict on the plan's cut."""
    crossing = next((cut for cut in cuts if cut.chosen), None)
    measured = crossing.measured if crossing else None
    status, headline, detail = _status(sources, measured)
    badge: Badge = sources.run.enclave.provenance if sources.run else "unknown"
    badge_title, badge_detail = _BADGES[badge]
    if sources.run and badge not in sources.plan.policy.enclave.accept:
        badge_detail += " The plan's policy does not accept such an enclave."
    elif sources.run and sources.run.enclave.accept:
        words = ", ".join(f'"{each}"' for each in sources.run.enclave.accept)
        badge_detail += f" What admitted it is the policy's line: [enclave] accept = [{words}]."
    return Verdict(
        status=status,
        headline=headline,
        detail=detail,
        metrics=_metrics(sources, measured),
        seen=seen_by_untrusted(sources),
        badge=badge,
        badge_title=badge_title,
        badge_detail=badge_detail,
    )


def seen_by_untrusted(sources: Sources) -> tuple[ValueRead, ...]:
    """Return the values that reach an untrusted part or that one makes, and what crosses under pads."""
    untrusted = {part.name for part in sources.plan.parts if not part.trusted}
    clear = tuple(
        value for value in sources.plan.values if value.source in untrusted or untrusted.intersection(value.targets)
    )
    masking = sources.plan.masking
    if masking is None:
        return clear
    ends = {"sent": (masking.part, masking.devices[0]), "received": (masking.devices[0], masking.part)}
    padded = tuple(
        ValueRead(tensor=value.tensor, label=value.label, source=source, targets=(target,), size_bytes=value.size_bytes)
        for value in masking.values
        for source, target in (ends[value.direction],)
    )
    return clear + padded


def _status(sources: Sources, measured: CutRead | None) -> tuple[Status, str, str]:
    """Return the status with its headline and the sentence below."""
    masking = sources.plan.masking
    if all(part.trusted for part in sources.plan.parts) and masking is not None:
        return (
            "nothing",
            "Nothing leaves the enclave in the clear but the answer",
            f"Layers on {clean(masking.devices[0])} ({len(masking.layers)}) run under pads used once. {_NOISE}",
        )
    if all(part.trusted for part in sources.plan.parts):
        return (
            "nothing",
            "The whole model runs in the enclave: nothing leaves it but the answer",
            "No value inside the model reaches an untrusted device, so there is nothing for it to attack.",
        )
    if sources.audit is None:
        unseen = "Nothing on this page shows what the untrusted side can reconstruct."
        if sources.plan.audit_id is not None:
            unseen = f"Leakage below is the plan's word, from audit {sources.plan.audit_id[:12]}, and was not checked."
        return (
            "unknown",
            "Leakage was not measured: no audit was given to this report",
            f"{unseen} Give the audit before private data goes through the model.",
        )
    if measured is None:
        return (
            "unknown",
            "Leakage was not measured at this plan's cut",
            "The audit covers other cuts of this model, but not the one that the plan uses.",
        )
    status, headline, detail = _against_policy(measured, sources.plan.policy.leakage.max)
    return status, headline, detail + _unlimited(measured, sources.plan.policy.leakage.max)


def _against_policy(measured: CutRead, bounds: dict[str, float]) -> tuple[Status, str, str]:
    """Hold what was measured at the plan's cut against the policy; what exceeds a bound outweighs all else."""
    count = len(measured.attacks.keys() - {DOWNSTREAM})
    best = f"The best of {count} attackers" if count > 1 else "The one attacker tried"
    over = [metric for metric, bound in bounds.items() if _upper(measured, metric) > bound]
    if over:
        names = " and ".join(metric_title(metric) for metric in over)
        return (
            "over",
            "What leaves the enclave leaks more than the policy allows",
            f"{best} exceeds the policy's bound in {names}.",
        )
    missing = [metric_title(metric) for metric in bounds if metric not in measured.leakage]
    if missing:
        return (
            "unknown",
            "Leakage was not measured in every metric that the policy limits",
            f"Missing at this cut: {', '.join(missing)}.",
        )
    if measured.doubt is not None:
        return ("unknown", "The figures at this cut mean nothing", f"It is in doubt, because {clean(measured.doubt)}.")
    if measured.cut_short is not None:
        return (
            "open",
            "Not shown to be within the policy's bound: the audit gave this cut up early",
            f"The rest of the attacks did not run, because {clean(measured.cut_short)}. Audit again with this policy.",
        )
    if not measured.settled_in(bounds):
        more = (
            f" Audit again with a larger budget: {budget_words(measured.next_budget)}." if measured.next_budget else ""
        )
        return (
            "open",
            "Not shown to be within the policy's bound: an attacker could still improve",
            f"{best} is below the bound, but one was still gaining when its budget ended: it may leak more than this."
            + more,
        )
    attackers = f"{count} attackers" if count > 1 else "one attacker"
    how = f"Measured by attacking it: {attackers} had what the untrusted side sees of inputs never met before."
    return (
        "within",
        "What leaves the enclave stayed within the policy's bound in every attack tried",
        f"{how} That is evidence about these attacks, not a proof about all.",
    )


def _unlimited(measured: CutRead, bounds: dict[str, float]) -> str:
    """Name what attackers reach in metrics that the policy sets no bound on: being within it says nothing of those."""
    found = [
        f"{metric_title(metric)} {score(estimate.upper)}"
        for metric, estimate in measured.leakage.items()
        if metric not in bounds
    ]
    return f" The policy does not limit everything that was measured: {', '.join(found)}." if found else ""


def _upper(measured: CutRead, metric: str) -> float:
    estimate = measured.leakage.get(metric)
    return estimate.upper if estimate else 0.0


def _metrics(sources: Sources, measured: CutRead | None) -> tuple[MetricView, ...]:
    if measured is None or sources.audit is None:
        return ()
    bounds = sources.plan.policy.leakage.max
    views = []
    for metric in in_policy_order(measured.leakage, bounds):
        estimate = measured.leakage[metric]
        key = measured.best_attack[metric]
        summary = sources.audit.attacks.get(key)
        views.append(
            MetricView(
                metric=metric,
                title=metric_title(metric),
                meaning=METRIC_MEANINGS.get(metric, ""),
                attack=clean(summary.title if summary else key),
                mean=estimate.mean,
                worst_5pct=estimate.worst_5pct,
                upper=estimate.upper,
                bound=bounds.get(metric),
            )
        )
    return tuple(views)
