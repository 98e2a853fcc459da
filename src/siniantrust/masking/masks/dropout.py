"""Numbers left out at random, other ones at every query."""

from __future__ import annotations

from siniantrust.masking._registry import Mask
from siniantrust.masking._site import Site


def build(site: Site) -> None:
    """Give 0 with probability p, the strength, and x / (1 - p) otherwise, by a fresh draw for every number."""
    dropped = site.require_share("the probability that a number is dropped")
    draw = site.uniform(site.value, low=0.0, high=1.0)
    # 1 from p on and 0 below, by arithmetic that any runtime has: comparisons of floats came with opset 9.
    kept = site.add("Floor", site.add("Add", draw, site.single(1.0 - dropped)))
    factor = site.add("Mul", site.typed(kept), site.constant(1 / (1 - dropped)))
    site.add("Mul", site.value, factor)


MASK = Mask(
    title="Dropout at the cut",
    source="Srivastava et al., JMLR 2014; at a cut in inference: He, Zhang and Lee, IEEE Internet of Things "
    "Journal 2021",
    cost="one uniform draw for each number; answers get worse with the probability; averaging undoes it",
    strength="probability that a number is dropped",
    random=True,
    role="defence",
    build=build,
    usual=0.5,
    any_strength=False,
)
