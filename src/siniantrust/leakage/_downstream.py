"""The attacker who computes on: what leaks at a cut leaks at every earlier one too.

Whoever sees the tensors of a cut and knows the network can compute those of any later cut and attack there (the data
processing inequality: Cover and Thomas, Elements of Information Theory, 2006). Where an attack does worse at an earlier
cut than at a later one, it was the attack's weakness, and the later figure counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from siniantrust.graph import Cut, Model, prefix_nodes
from siniantrust.leakage._schema import AttackResult, AttackSummary, CutAudit
from siniantrust.leakage._suite import best_of, suite_converged

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
    if not later:
        return found
    sources = {metric: max(later, key=lambda cut: cut.leakage[metric].upper) for metric in found.leakage}
    stronger = [metric for metric, cut in sources.items() if cut.leakage[metric].upper > found.leakage[metric].upper]
    if not stronger:
        return found
    taken = {metric: cut.attacks[cut.best_attack[metric]] for metric, cut in sources.items()}
    gains = {metric: result.gains.get(metric, result.gain) for metric, result in taken.items()}
    result = AttackResult(
        leakage={metric: result.leakage[metric] for metric, result in taken.items()},
        converged=all(result.converged for result in taken.values()),
        gain=max(gains.values(), key=abs),
        gains=gains,
        detail="; ".join(f"{metric}: {cut.best_attack[metric]} at {cut.cut_id}" for metric, cut in sources.items()),
        time_s=0.0,
        picture=taken[stronger[0]].picture,
    )
    attacks = {**found.attacks, NAME: result}
    leakage, best = best_of(attacks)
    return found.model_copy(
        update={
            "attacks": attacks,
            "leakage": leakage,
            "best_attack": best,
            "converged": suite_converged(attacks, tolerance=tolerance),
        }
    )
