"""Clipped values and Gaussian noise after a privacy budget, which is accounted for over queries."""

from __future__ import annotations

import numpy as np

from siniantrust._extras import require
from siniantrust.masking._registry import Mask, Parameter
from siniantrust.masking._site import Site

QUERIES = (10, 100, 1000)
"""Queries of one item over which the budget is summed up in the model's record."""


def build(site: Site) -> None:
    """Clip an item's distance from the calibration mean to C, and add N(0, (2 C z)²), z the strength, to every number.

    C is ``clip`` times the median distance on the calibration items. Two inputs, whatever they are, then differ by at
    most 2 C, the sensitivity, so that every query is locally (epsilon, delta) differentially private as the Gaussian
    mechanism of noise multiplier z; q queries of one item are together that of z / sqrt(q). The sum crosses in units of
    C, by which the other side multiplies.
    """
    multiplier, delta = site.strength, site.parameters["delta"]
    if multiplier <= 0 or not 0 < delta < 1 or site.parameters["clip"] <= 0:
        raise site.refuse("a budget needs strength and clip above 0 and delta between 0 and 1")
    axis = site.item_axis
    mean = site.values.mean(axis=axis, keepdims=True)
    distances = np.sqrt(np.square(np.moveaxis(site.values - mean, axis, 0)).reshape(site.values.shape[axis], -1).sum(1))
    bound = site.parameters["clip"] * (float(np.median(distances)) or 1.0)
    away = site.add("Sub", site.value, site.constant(mean))
    clipped = site.add("Div", away, site.add("Max", site.distance(away), site.constant(bound)))
    # The mean goes with the noise, so that one number is added to each.
    fresh = site.add("Add", site.normal(std=2 * multiplier), site.constant(mean / bound))
    site.add("Mul", site.crosses(site.add("Add", clipped, fresh)), site.constant(bound))
    site.note_noise(2 * bound * multiplier, information=1.0)
    site.facts.update(clip_l2=bound, sensitivity_l2=2 * bound, delta=delta)
    site.facts["epsilon_per_query"] = epsilon(multiplier, delta=delta)
    site.facts.update(
        {f"epsilon_of_{count}_queries": epsilon(multiplier, delta=delta, queries=count) for count in QUERIES}
    )


def epsilon(multiplier: float, *, delta: float, queries: int = 1) -> float:
    """Return what ``queries`` answers of Gaussian noise of a multiple of the sensitivity cost, exactly.

    By the analytic formula (Balle and Wang, ICML 2018) of the library dp-accounting; Gaussian mechanisms compose to one
    of multiplier / sqrt(queries).

    Raises:
        MissingExtraError: if dp-accounting is not installed.
    """
    accounting = require("dp_accounting", extra="privacy")
    return float(accounting.get_epsilon_gaussian(multiplier / queries**0.5, delta))


MASK = Mask(
    title="Gaussian noise by a budget",
    source="Dwork and Roth 2014, appendix A, with Balle and Wang, ICML 2018; the bound holds for real numbers, and "
    "floating-point noise has gaps (Mironov 2012)",
    cost="a few passes and one normal draw for each number; a small epsilon leaves no answer; the budget "
    "counts averaging",
    strength="noise multiplier: standard deviation of the noise over the sensitivity",
    random=True,
    role="defence",
    build=build,
    usual=0.05,
    parameters=(
        Parameter("clip", 1, "bound on the distance from the mean, in medians of the calibration items' distances"),
        Parameter("delta", 1e-6, "probability of the budget's failure"),
    ),
)
