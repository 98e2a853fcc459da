"""Few levels, and a share of them replaced by levels drawn evenly."""

from __future__ import annotations

import math

from siniantrust.masking._registry import Mask, Parameter
from siniantrust.masking._site import Site


def build(site: Site) -> None:
    """Round x to one of 2^bits levels of the calibrated range; with probability p give a level drawn evenly instead.

    The level's number crosses; the other side makes the level of it. One uniform draw u does both: below p, u / p is
    even on [0, 1) and chooses the level. Whatever x is, each number is locally differentially private with epsilon =
    ln(1 + L (1 - p) / p) for L levels, and an item of d numbers with d times that; q queries of one item with q times
    more.
    """
    replaced = site.strength
    if not 0 <= replaced <= 1:
        raise site.refuse(f"the strength is the probability of a level that is drawn, 0 to 1; found {replaced:g}")
    bits = site.whole("bits", site.parameters["bits"], least=1)
    levels, step = 1 << bits, (site.high - site.low) / ((1 << bits) - 1)
    level = site.nearest_level(step)
    site.facts["levels"] = levels
    if replaced:
        draw = site.uniform(site.value, low=0.0, high=1.0)
        other = site.typed(site.add("Floor", site.add("Mul", draw, site.single(levels / replaced))))
        # 1 from p on, 0 below; where it is 1, what ``other`` holds does not count.
        kept = site.typed(site.add("Floor", site.add("Add", draw, site.single(1.0 - replaced))))
        change = site.add("Mul", site.add("Sub", level, other), kept)
        # Rounding may draw a level beyond the last one.
        level = site.add("Min", site.add("Add", other, change), site.constant(levels - 1.0))
        epsilon = math.log1p(levels * (1 - replaced) / replaced)
        site.facts["epsilon_per_number"] = epsilon
        site.facts["epsilon_per_query"] = epsilon * site.item_elements
    site.at_level(level, step)


MASK = Mask(
    title="Quantisation with randomised response",
    source="Warner 1965; with several levels: Kairouz, Oh and Viswanath, JMLR 2016",
    cost="one uniform draw for each number and a few passes; answers get worse with the probability; averaging "
    "undoes it",
    strength="probability that a level is drawn instead of sent",
    random=True,
    role="defence",
    build=build,
    usual=0.5,
    any_strength=False,
    parameters=(Parameter("bits", 2, "bits of a level"),),
)
