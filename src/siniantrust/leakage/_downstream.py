"""The attacker who computes on: what leaks at a cut leaks at every earlier one too.

Whoever sees the tensors of a cut and knows the network can compute those of any later cut and attack there (the data
processing inequality: Cover and Thomas, Elements of Information Theory, 2006). Where an attack does worse at an earlier
cut than at a later one, it was the attack's weakness, and the later figure counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from siniantrust.graph import Cut, Model, prefix_nodes
from siniantrust.leakage._schema import AttackResult, AttackSummary, CutAudit
from siniantrust.leakage._suite import best_of, unsettled

NAME = "downstream"
SUMMARY = AttackSummary(
    title="Best attack at a later cut, computed forward",
    source="data processing inequality: Cover and Thomas, Elements of Information Theory, 2006",
    knowledge="white box: also knows the part of the network between the two cuts; honest but curious",
)


def with_downstream(
    model: Model, cuts: Sequence[Cut], audited: Sequence[CutAudit], *, tolerance: float
) -> list[CutAudit]:
    """Return the audited cuts, each with the attack ``downstream`` where a later cut leaks more by some metric."""
    prefixes = [frozenset(prefix_nodes(model, cut)) for cut in cuts]
    return [
        _joined(found, [later for other, later in zip(prefixes, audited, strict=True) if prefix < other], tolerance)
        for prefix, found in zip(prefixes, audited, strict=True)
    ]


def _joined(found: CutAudit, later: Sequence[CutAudit], tolerance: float) -> CutAudit:
    sources = {
        metric: max(measured, key=lambda cut: cut.leakage[metric].upper)
        for metric in found.leakage
        if (measured := [cut for cut in later if metric in cut.leakage])
    }
    stronger = [metric for metric, cut in sources.items() if cut.leakage[metric].upper > found.leakage[metric].upper]
    if stronger:
        taken = {metric: cut.attacks[cut.best_attack[metric]] for metric, cut in sources.items()}
        known = all(metric in result.gains for metric, result in taken.items())
        gains = {metric: result.gains[metric] for metric, result in taken.items()} if known else {}
        result = AttackResult(
            leakage={metric: result.leakage[metric] for metric, result in taken.items()},
            converged=all(result.converged for result in taken.values()),
            gain=max(gains.values(), key=abs, default=0.0),
            gains=gains,
            detail="; ".join(f"{metric}: {cut.best_attack[metric]} at {cut.cut_id}" for metric, cut in sources.items()),
            time_s=0.0,
            picture=taken[stronger[0]].picture,
            worst_picture=taken[stronger[0]].worst_picture,
        )
        attacks = {**found.attacks, NAME: result}
        leakage, best = best_of(attacks)
        still_open = tuple(unsettled(attacks, tolerance=tolerance))
        converged = found.cut_short is None and not still_open
        found = found.model_copy(
            update={
                "attacks": attacks,
                "leakage": leakage,
                "best_attack": best,
                "converged": converged,
                "unsettled": still_open,
            }
        )
    return _unsettled(found, later, tolerance)


def _unsettled(found: CutAudit, later: Sequence[CutAudit], tolerance: float) -> CutAudit:
    """Return ``found`` as open in a metric if an attack at a later cut, still improving, may pass its figure."""
    still_open = dict.fromkeys(found.unsettled)
    budget = dict(found.next_budget)
    for cut in later:
        for result in cut.attacks.values():
            for metric, gain in result.gains.items():
                reached = result.leakage[metric].mean + max(gain, 0.0)
                if metric in found.leakage and reached > found.leakage[metric].mean + tolerance:
                    still_open[metric] = None
                    budget = budget or dict(cut.next_budget or result.next_budget)
    return found.model_copy(
        update={
            "converged": found.converged and not still_open,
            "unsettled": tuple(still_open),
            "next_budget": budget if found.cut_short is None else {},
        }
    )
