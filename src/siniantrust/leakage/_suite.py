"""Every attack at one cut: with half the means and with all, so that an attacker who could still improve is seen."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._estimates import estimates
from siniantrust.leakage._metrics import Metric, Scores, measure
from siniantrust.leakage._registry import Attack, Guess, Problem, Reconstruction
from siniantrust.leakage._schema import AttackResult, Estimate


@dataclass(frozen=True, slots=True)
class Judge:
    """What attacks are judged by and never see: the held-out inputs, and the prior attacker's scores on them."""

    originals: np.ndarray = field(repr=False)
    prior: Mapping[Metric, Scores] = field(repr=False)
    kind: str
    seed: int

    def leakage(self, reconstructed: np.ndarray) -> dict[str, Estimate]:
        """Return the leakage of a reconstruction, by metric."""
        found = measure(reconstructed, self.originals, self.kind)
        return {str(metric): value for metric, value in estimates(found, self.prior, seed=self.seed).items()}


def run_attack(
    attack: Attack, problem: Problem, half: Problem, judge: Judge, budget: Budget, *, seed: int
) -> tuple[AttackResult, np.ndarray]:
    """Run one attack with half the data and training and with all of it; return its result and its reconstructions.

    An attack is converged if no metric's mean leakage moved by more than the tolerance from the one to the other. One
    that falls by more is unsteady, which is no reason for trust either.
    """
    started = time.monotonic()
    before = judge.leakage(_reconstruction(attack.run(half, budget.half(), seed)).heldout)
    answer = _reconstruction(attack.run(problem, budget, seed))
    leakage = judge.leakage(answer.heldout)
    gains = {metric: leakage[metric].mean - before[metric].mean for metric in leakage}
    gain = max(gains.values(), key=abs)
    note = f"; {problem.attacker.note}" if problem.attacker.note else ""
    result = AttackResult(
        leakage=leakage,
        converged=abs(gain) <= budget.tolerance,
        gain=gain,
        gains=gains,
        detail=f"{answer.detail}{note}",
        time_s=time.monotonic() - started,
    )
    return result, answer.heldout


def _reconstruction(answer: Reconstruction | Guess) -> Reconstruction:
    if isinstance(answer, Guess):
        raise TypeError("this attack guesses a label")
    return answer


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


def suite_converged(results: Mapping[str, AttackResult], *, tolerance: float) -> bool:
    """Return whether no attack, moving once more as far as it moved last, would pass the best one by the tolerance.

    For the best attack this says that its own gain is within the tolerance; a weaker one may still be improving as
    long as it is not about to overtake.
    """
    leakage, _ = best_of(results)
    return all(
        result.leakage[metric].mean + abs(result.gains[metric]) <= leakage[metric].mean + tolerance
        for result in results.values()
        for metric in result.leakage
    )
