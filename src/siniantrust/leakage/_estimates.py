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
        mean = upper = 0.0
        own = np.zeros(1)
    else:
        gained, possible = found.values - prior.values, found.perfect - prior.values
        mean = float(gained.mean()) / span
        upper = max(mean, bootstrap_upper(gained, possible, seed=seed))
        own = gained[possible != 0] / possible[possible != 0]
    if metric == "reidentification" and span:
        chance = float(prior.values.mean())
        upper = max(upper, (binomial_upper(float(found.values.sum()), len(found.values)) - chance) / span)
    worst = np.sort(own)[-math.ceil(_WORST_SHARE * len(own)) :]
    return Estimate(
        mean=mean,
        worst_5pct=float(worst.mean()),
        upper=upper,
        raw=float(found.values.mean()),
        prior=float(prior.values.mean()),
    )


def bootstrap_upper(gained: np.ndarray, possible: np.ndarray, *, seed: int) -> float:
    """Return the one-sided 95 % percentile bound of mean(gained) / mean(possible) over 1,000 resamples of the items.

    Both are resampled together, so that a perfect attack is 1 in every resample.
    """
    generator = np.random.default_rng(seed)
    ratios = []
    for _ in range(RESAMPLES // _CHUNK):
        rows = generator.integers(0, len(gained), (_CHUNK, len(gained)))
        below = possible[rows].mean(axis=1)
        ratios.append(gained[rows].mean(axis=1)[below != 0] / below[below != 0])
    return float(np.quantile(np.concatenate(ratios), _CONFIDENCE))


def binomial_upper(hits: float, trials: int) -> float:
    """Return the exact one-sided 95 % upper bound of a hit rate."""
    from scipy.stats import beta

    return 1.0 if hits >= trials else float(beta.ppf(_CONFIDENCE, hits + 1, trials - hits))
