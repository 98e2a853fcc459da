"""Zeros instead of the values: a reference that hides all."""

from __future__ import annotations

from siniantrust.masking._registry import Mask
from siniantrust.masking._site import Site


def build(site: Site) -> None:
    """Give 0 for every number, whatever the strength."""
    # A product with 0 would keep the sign of the value in the sign of the zero.
    site.add("Sub", site.value, site.value)


MASK = Mask(
    title="Constant",
    source="what crosses does not depend on the input",
    cost="nothing; the model's answers are lost",
    strength="not used",
    random=False,
    role="reference",
    build=build,
)
