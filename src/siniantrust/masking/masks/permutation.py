"""A fixed permutation of an item's numbers: a negative example, it hides nothing from who learns from pairs."""

from __future__ import annotations

import numpy as np

from siniantrust.masking._registry import Mask
from siniantrust.masking._site import Site


def build(site: Site) -> None:
    """Bring the item's numbers into an order that the seed chooses and that never changes; the strength is not used."""
    axis, rank = site.item_axis, len(site.tensor.shape)
    # Items first, then one row for each.
    forward = [axis, *(other for other in range(rank) if other != axis)]
    items = site.value if axis == 0 else site.add("Transpose", site.value, perm=forward)
    rows = site.add("Reshape", items, site.indices(np.array([-1, site.item_elements])))
    mixed = site.add("Gather", rows, site.indices(site.generator.permutation(site.item_elements)), axis=1)
    shaped = site.add("Reshape", mixed, site.indices(np.array([-1, *site.item_shape])))
    if axis != 0:
        site.add("Transpose", shaped, perm=[int(place) for place in np.argsort(forward)])


MASK = Mask(
    title="Fixed permutation",
    source="a common idea; regression from pairs undoes any fixed linear map (Hoerl and Kennard 1970)",
    cost="one gather; the model's answers are lost unless its second part is trained for the order",
    random=False,
    role="negative",
    build=build,
)
