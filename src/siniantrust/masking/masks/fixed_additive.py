"""One fixed random tensor added to every item: a negative example, the mean of what crosses gives it away."""

from __future__ import annotations

from siniantrust.masking._registry import Mask
from siniantrust.masking._site import Site


def build(site: Site) -> None:
    """Add m to x, drawn once, normal with strength * s."""
    shape = tuple(1 if axis == site.item_axis else size for axis, size in enumerate(site.tensor.shape))
    offset = site.strength * site.spread * site.generator.standard_normal(shape)
    site.add("Add", site.value, site.constant(offset))


MASK = Mask(
    title="Fixed additive mask",
    source="a one-time pad used twice: Shannon 1949 proves secrecy for a fresh key only",
    cost="one addition; the model's answers are lost unless its second part subtracts it",
    strength="standard deviation of the added tensor, in standard deviations of the tensor",
    random=False,
    role="negative",
    build=build,
)
