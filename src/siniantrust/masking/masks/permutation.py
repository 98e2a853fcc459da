"""A fixed permutation of an item's numbers: a negative example, it hides nothing from who learns from pairs."""

from __future__ import annotations

from siniantrust.masking._registry import Mask
from siniantrust.masking._site import Site


def build(site: Site) -> None:
    """Bring the item's numbers into an order that the seed chooses and that never changes; the strength is not used."""
    order = site.generator.permutation(site.item_elements)
    site.unrolled(site.add("Gather", site.rows(site.value), site.indices(order), axis=1))


MASK = Mask(
    title="Fixed permutation",
    source="a common idea; regression from pairs undoes any fixed linear map (Hoerl and Kennard 1970)",
    cost="one gather; the model's answers are lost unless its second part is trained for the order",
    strength="not used",
    random=False,
    role="negative",
    build=build,
)
