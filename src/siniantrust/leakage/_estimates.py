"""From scores per item to a leakage figure: corrected for the prior, over all seeds, with bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from siniantrust.leakage._metrics import Metric, Scores
from siniantrust.leakage._schema import Estimate

RESAMPLES = 1000
_CONFIDENCE = 0.95
_WORST_SHARE = 0.05
_CHUNK = 100
# How often another attacker may double what this one had.
_DOUBLINGS = 2


def mean_leakage(found: Scores, prior: Scores) -> float:
    """Return (found - prior) / (perfect - prior) of the means, over the items that ``found`` has scores of."""
    before = float(prior.values[: len(found.values)].mean())
    span = found.perfect - before
    return (float(found.values.mean()) - before) / span if span else 0.0


def estimate_seeds(
    found: Sequence[Scores], prior: Scores, metric: Metric, *, seed: int, reference: Scores | None = None
) -> Estimate:
    """Return the estimate of an attack that ran with several seeds: the mean of means, and the outermost bounds.

    An attacker may run as often as they like and keep the luckiest run, so that the highest bound counts.
    ``reference`` completes an attack on fewer items.
    """
    each = [
        estimate(scores, prior, metric, seed=seed)
        if reference is None or len(scores.values) == len(reference.values)
        else estimate_completed(scores, reference, prior, metric, seed=seed)
        for scores in found
    ]
    lowers = [one.lower for one in each if one.lower is not None]
    return Estimate(
        mean=float(np.mean([one.mean for one in each])),
        worst_5pct=max(one.worst_5pct for one in each),
        upper=max(one.upper for one in each),
        lower=min(lowers, default=None),
        raw=float(np.mean([one.raw for one in each])),
        prior=each[0].prior,
        by_seed=tuple(one.mean for one in each),
    )


def gained(mean: float, move: float) -> float:
    """Return what a rise of the mean leakage by ``move``, to ``mean``, was worth to the attacker; 0 if it fell.

    Below zero an attack does worse than answering the prior, which is free, so what it rises there is worth nothing.
    """
    return max(mean, 0.0) - max(mean - max(move, 0.0), 0.0)


def with_headroom(found: Estimate, move: float) -> Estimate:
    """Return the estimate with an upper bound that leaves room for gaining twice more what was gained last.

    Measured gains are about the same for each doubling of the data; another attacker may have four times as many, if
    only by asking for altered copies of their own. Gains that shrink to two thirds each time sum to no more for ever.
    """
    headroom = max(0.0, min(_DOUBLINGS * gained(found.mean, move), 1.0 - found.upper))
    return found.model_copy(update={"upper": found.upper + headroom, "headroom": headroom})


def completed(found: Scores, reference: Scores) -> Scores:
    """Return scores of all N items for an attack that inverted only the first n, with the mean that it would reach.

    ``reference`` (N) is another attack on the same problem. What this one gained over it on the n items is added to the
    reference on all items: a control variate, unbiased whatever the reference is, and the more certain the more alike
    the two are (Glynn and Szechtman 2002). It never passes the perfect score.
    """
    count = len(found.values)
    gained = float((found.values - reference.values[:count]).mean())
    missing = found.perfect - float(reference.values.mean())
    step = min(gained, missing) if missing > 0 else max(gained, missing)
    return Scores(reference.values + step, found.perfect)


def estimate_completed(found: Scores, reference: Scores, prior: Scores, metric: Metric, *, seed: int) -> Estimate:
    """Return the estimate of an attack on the first n items, completed by another attack on all N.

    The bounds add those of the two parts: of the reference over N items, and of the gain over n. Where the metric
    counts hits, the gain's bound is the exact binomial one, so that no gain among few items is not taken for certainty.
    """
    count = len(found.values)
    whole = estimate(completed(found, reference), prior, metric, seed=seed)
    gained = found.values - reference.values[:count]
    possible = np.full(count, found.perfect - whole.prior)
    if not possible.any():
        return whole
    ratios = resampled_ratios(gained - gained.mean(), possible, seed=seed)
    above, below = float(np.quantile(ratios, _CONFIDENCE)), float(np.quantile(ratios, 1 - _CONFIDENCE))
    if metric in ("reidentification", "attribute"):
        share, span = float(gained.mean()), found.perfect - whole.prior
        above = max(above, (binomial_upper(float((gained > 0).sum()), count) - max(share, 0.0)) / span)
        below = min(below, (-binomial_upper(float((gained < 0).sum()), count) - min(share, 0.0)) / span)
    own = estimate(found, prior, metric, seed=seed)
    return whole.model_copy(
        update={
            "upper": max(min(whole.upper + max(above, 0.0), 1.0), whole.mean),
            "lower": None if whole.lower is None else whole.lower + min(below, 0.0),
            "worst_5pct": own.worst_5pct,
        }
    )


def estimates(found: Mapping[Metric, Scores], prior: Mapping[Metric, Scores], *, seed: int) -> dict[str, Estimate]:
    """Correct every metric for its prior and bound its mean."""
    return {str(metric): estimate(scores, prior[metric], metric, seed=seed) for metric, scores in found.items()}


def estimate(found: Scores, prior: Scores, metric: Metric, *, seed: int) -> Estimate:
    """Return (found - prior) / (perfect - prior): its mean, worst 5 % of items and one-sided 95 % bounds.

    The bounds are the 95th and the 5th percentile of 1,000 bootstrap resamples of the items (Efron 1979). For metrics
    that count hits (re-identification, a private label) they are at least the exact binomial bounds (Clopper, Pearson
    1934), so that no hit among N is not taken for certainty. ``found`` may cover only the first items of ``prior``.
    """
    before = Scores(prior.values[: len(found.values)], prior.perfect)
    chance = float(before.values.mean())
    span = found.perfect - chance
    if span == 0:
        # The prior attacker is perfect already: the features cannot add anything.
        mean = upper = lower = 0.0
        own = np.zeros(1)
    else:
        gained, possible = found.values - before.values, found.perfect - before.values
        mean = mean_leakage(found, before)
        ratios = resampled_ratios(gained, possible, seed=seed)
        upper = max(mean, float(np.quantile(ratios, _CONFIDENCE)))
        lower = min(mean, float(np.quantile(ratios, 1 - _CONFIDENCE)))
        own = gained[possible != 0] / possible[possible != 0]
        if metric in ("reidentification", "attribute"):
            hits, trials = float(found.values.sum()), len(found.values)
            upper = max(upper, (binomial_upper(hits, trials) - chance) / span)
            lower = min(lower, (1 - binomial_upper(trials - hits, trials) - chance) / span)
    worst = np.sort(own)[-math.ceil(_WORST_SHARE * len(own)) :]
    return Estimate(
        mean=mean,
        worst_5pct=float(worst.mean()),
        upper=max(upper, 0.0),
        lower=lower,
        raw=float(found.values.mean()),
        prior=chance,
    )


def resampled_ratios(gained: np.ndarray, possible: np.ndarray, *, seed: int) -> np.ndarray:
    """Return mean(gained) / mean(possible) over 1,000 resamples of the items.

    Both are resampled together, so that a perfect attack is 1 in every resample.
    """
    generator = np.random.default_rng(seed)
    ratios = []
    for _ in range(RESAMPLES // _CHUNK):
        rows = generator.integers(0, len(gained), (_CHUNK, len(gained)))
        below = possible[rows].mean(axis=1)
        ratios.append(gained[rows].mean(axis=1)[below != 0] / below[below != 0])
    return np.concatenate(ratios)


def binomial_upper(hits: float, trials: int) -> float:
    """Return the exact one-sided 95 % upper bound of a hit rate."""
    from scipy.stats import beta

    return 1.0 if hits >= trials else float(beta.ppf(_CONFIDENCE, hits + 1, trials - hits))
