"""Few levels, and a share of them replaced by levels drawn evenly."""

from __future__ import annotations

import math

from siniantrust.masking._registry import Mask, Parameter
from siniantrust.masking._site import Site


def build(site: Site) -> None:
    """Round x to one of 2^bits levels of the calibrated range; with probability p give a level drawn evenly instead.

    The level's number crosses, counted from 1; the other side makes the level of it. One uniform draw u does both:
    below p, u / p is even on [0, 1) and chooses the level. Of u alone a number is made that is held against that of x's
    level: below p the negative of the number to be sent, which is the lesser one whatever x is; else one beyond all
    levels. What crosses is the lesser of the two, without its sign.

    Whatever x is, each number is locally differentially private with epsilon = ln(1 + L (1 - p) / p) for L levels, and
    an item of d numbers with d times that; q queries of one item with q times more.
    """
    replaced = site.strength
    if not 0 <= replaced <= 1:
        raise site.refuse(f"the strength is the probability of a level that is drawn, 0 to 1; found {replaced:g}")
    bits = site.whole("bits", site.parameters["bits"], least=1)
    levels, step = 1 << bits, (site.high - site.low) / ((1 << bits) - 1)
    level = site.nearest_level(step, first=1)
    site.facts["levels"] = levels
    if replaced:
        draw = site.uniform(level, low=0.0, high=1.0)
        other = site.add("Floor", site.add("Mul", draw, site.single(levels / replaced)))
        # Rounding may draw a level beyond the last one, and from p on this is beyond it too.
        other = site.add("Add", site.add("Min", other, site.single(levels - 1.0)), site.single(1.0))
        # 1 from p on, 0 below.
        kept = site.add("Floor", site.add("Add", draw, site.single(1.0 - replaced)))
        instead = site.add("Sub", site.add("Mul", kept, site.single(2.0 * levels)), other)
        level = site.add("Abs", site.add("Min", level, site.typed(instead)))
        epsilon = math.log1p(levels * (1 - replaced) / replaced)
        site.facts["epsilon_per_number"] = epsilon
        site.facts["epsilon_per_query"] = epsilon * site.item_elements
    site.at_level(level, step, first=1)


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
