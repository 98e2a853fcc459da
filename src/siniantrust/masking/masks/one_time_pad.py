"""A fresh pad for every number: a reference that hides all, since nobody takes it off again."""

from __future__ import annotations

from siniantrust.masking._registry import Mask
from siniantrust.masking._site import Site

# Levels of the pad: sums of two are exact in the tensor's type, so that rounding cannot tell them apart.
_LEVELS = {"float16": 1 << 10, "float32": 1 << 16, "float64": 1 << 16}


def build(site: Site) -> None:
    """Give frac((k + K) / L), with k of 0..L-1 the value's level in the calibrated range, and K an even draw of 0..L-1.

    Whatever k is, the result is even over the L multiples of 1 / L below 1 and independent of it; the strength is not
    used. L is 65,536 (1,024 for half floats).
    """
    levels = _LEVELS[site.tensor.dtype]
    above = site.add("Sub", site.clipped(site.value, site.low, site.high), site.constant(site.low))
    scale = site.constant((levels - 1) / (site.high - site.low))
    level = site.add("Floor", site.add("Mul", above, scale))
    key = site.typed(site.add("Floor", site.uniform(site.value, low=0.0, high=float(levels))))
    turns = site.add("Mul", site.add("Add", level, key), site.constant(1 / levels))
    site.add("Sub", turns, site.add("Floor", turns))


MASK = Mask(
    title="One-time pad, never removed",
    source="Shannon 1949, Communication Theory of Secrecy Systems",
    cost="one uniform draw for each number; the model's answers are lost, as the second part has no pad to take off",
    strength="not used",
    random=True,
    role="reference",
    build=build,
)
