"""From scores per item to a leakage figure: corrected for the prior, with a bound."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from siniantrust.leakage._metrics import Metric, Scores, measure
from siniantrust.leakage._schema import Estimate

RESAMPLES = 1000
_CONFIDENCE = 0.95
_WORST_SHARE = 0.05
_CHUNK = 100


def prior_scores(attacker_targets: np.ndarray, originals: np.ndarray, kind: str) -> dict[Metric, Scores]:
    """Score the prior attacker, who sees no features and answers with the mean of the attacker's items."""
    mean = attacker_targets.mean(axis=0, dtype=np.float64).astype(np.float32)
    scores = measure(np.broadcast_to(mean, originals.shape), originals, kind)
    # The same answer for all items is right once in a gallery of N, whichever item it happens to be near.
    chance = np.full(len(originals), 1 / len(originals))
    scores["reidentification"] = Scores(chance, perfect=1.0)
    return scores


def estimates(found: Mapping[Metric, Scores], prior: Mapping[Metric, Scores], *, seed: int) -> dict[str, Estimate]:
    """Correct every metric for its prior and bound its mean."""
    return {metric: estimate(scores, prior[metric], metric, seed=seed) for metric, scores in found.items()}


def estimate(found: Scores, prior: Scores, metric: Metric, *, seed: int) -> Estimate:
    """Return (found - prior) / (perfect - prior): its mean, worst 5 % of items and one-sided 95 % upper bound.

    The bound is the 95th percentile of 1,000 bootstrap resamples of the items (Efron 1979). For re-identification,
    which counts hits, it is at least the exact binomial bound (Clopper, Pearson 1934), so that no hit among N is not
    taken for certainty.
    """
    span = found.perfect - float(prior.values.mean())
    if span == 0:
        # The prior attacker is perfect already: the features cannot add anything.
        leaks = own = np.zeros(len(found.values))
    else:
        leaks = (found.values - prior.values) / span
        own_span = found.perfect - prior.values
        usable = own_span != 0
        own = (found.values - prior.values)[usable] / own_span[usable]
    mean = float(leaks.mean())
    upper = max(mean, bootstrap_upper(leaks, seed=seed))
    if metric == "reidentification" and span:
        chance = float(prior.values.mean())
        upper = max(upper, (binomial_upper(float(found.values.sum()), len(found.values)) - chance) / span)
    worst = np.sort(own)[-max(1, math.ceil(_WORST_SHARE * len(own))) :]
    return Estimate(
        mean=mean,
        worst_5pct=float(worst.mean()) if len(worst) else 0.0,
        upper=upper,
        raw=float(found.values.mean()),
        prior=float(prior.values.mean()),
    )


def bootstrap_upper(values: np.ndarray, *, seed: int) -> float:
    """Return the one-sided 95 % percentile bound of the mean over 1,000 bootstrap resamples."""
    generator = np.random.default_rng(seed)
    means = [
        values[generator.integers(0, len(values), (_CHUNK, len(values)))].mean(axis=1)
        for _ in range(RESAMPLES // _CHUNK)
    ]
    return float(np.quantile(np.concatenate(means), _CONFIDENCE))


def binomial_upper(hits: float, trials: int) -> float:
    """Return the exact one-sided 95 % upper bound of a hit rate."""
    from scipy.stats import beta

    return 1.0 if hits >= trials else float(beta.ppf(_CONFIDENCE, hits + 1, trials - hits))
