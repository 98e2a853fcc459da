"""From the trials of every attack at one cut to what leaks there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from siniantrust.leakage._climb import Trial
from siniantrust.leakage._estimates import estimate_seeds, gained, mean_leakage, with_headroom
from siniantrust.leakage._judge import Judge
from siniantrust.leakage._metrics import Metric, Scores
from siniantrust.leakage._schema import AttackResult, Estimate


def references(mounted: Mapping[str, Sequence[Trial]], judge: Judge) -> dict[Metric, Scores]:
    """Return by metric the scores of the best attack that inverted every held-out item.

    Attacks that optimise each item by itself invert only some; these scores complete theirs.
    """
    found: dict[Metric, tuple[float, Scores]] = {}
    for trials in mounted.values():
        for metric, scores in trials[0].scores.items():
            if len(scores.values) == len(judge.originals):
                mean = mean_leakage(scores, judge.prior[metric])
                if metric not in found or mean > found[metric][0]:
                    found[metric] = (mean, scores)
    return {metric: scores for metric, (_, scores) in found.items()}


def attack_result(
    trials: Sequence[Trial], judge: Judge, reference: Mapping[Metric, Scores], *, tolerance: float
) -> AttackResult:
    """Return the result of one attack's trials: the first climbed, the others repeat it with other seeds.

    What the first gained when its means last doubled is headroom on the upper bounds.

    An attack is converged if no metric's mean leakage moved by more than the tolerance when its means doubled. One
    that falls by more is unsteady, which is no reason for trust either.
    """
    first = trials[0]
    gains = dict(first.moves)
    gain = max(gains.values(), key=abs, default=0.0)
    items = len(next(iter(first.scores.values())).values)
    return AttackResult(
        leakage={
            str(metric): with_headroom(
                estimate_seeds(
                    [trial.scores[metric] for trial in trials],
                    judge.prior[metric],
                    metric,
                    seed=judge.seed,
                    reference=reference.get(metric),
                ),
                gains.get(metric, 0.0),
            )
            for metric in first.scores
        },
        converged=bool(gains) and abs(gain) <= tolerance,
        gain=gain,
        gains=gains,
        rungs=first.rungs,
        next_budget=dict(first.next_budget),
        heldout_items=items if items < len(judge.originals) else None,
        detail=first.detail,
        time_s=sum(trial.time_s for trial in trials),
    )


def best_of(results: Mapping[str, AttackResult]) -> tuple[dict[str, Estimate], dict[str, str]]:
    """Return per metric the estimate with the highest upper bound over the attacks, and whose it is."""
    metrics = dict.fromkeys(metric for result in results.values() for metric in result.leakage)
    best = {
        metric: max(
            (name for name in results if metric in results[name].leakage),
            key=lambda name: results[name].leakage[metric].upper,
        )
        for metric in metrics
    }
    return {metric: results[name].leakage[metric] for metric, name in best.items()}, best


def unsettled(results: Mapping[str, AttackResult], *, tolerance: float) -> dict[str, list[str]]:
    """Return by metric the attacks that, moving once more as far as they moved last, would pass the best one.

    By more than the tolerance, that is. For the best attack this says that its own move, up or down, is not within the
    tolerance; a weaker one may still be improving as long as it is not about to overtake. An attack of which it is not
    known how it moves may do anything.
    """
    leakage, best = best_of(results)
    found: dict[str, list[str]] = {}
    for name, result in results.items():
        for metric, figure in result.leakage.items():
            gain = result.gains.get(metric)
            reach = None if gain is None else abs(gain) if name == best[metric] else gained(figure.mean, gain)
            if reach is None or figure.mean + reach > leakage[metric].mean + tolerance:
                found.setdefault(metric, []).append(name)
    return found


def suite_next_budget(results: Mapping[str, AttackResult], open_attacks: Mapping[str, list[str]]) -> dict[str, int]:
    """Return the budget to try next: the largest that any attack asks for which keeps the suite from converging."""
    wanted: dict[str, int] = {}
    for name in dict.fromkeys(name for names in open_attacks.values() for name in names):
        for limit, value in results[name].next_budget.items():
            wanted[limit] = max(wanted.get(limit, 0), value)
    return wanted
