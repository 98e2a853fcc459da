"""The tokens of a sequence in a fixed secret order: a negative example, each token crosses as it is."""

from __future__ import annotations

from siniantrust.masking._registry import Mask
from siniantrust.masking._site import Site

_RANK = 3


def build(site: Site) -> None:
    """Bring the tokens, along the second axis, into an order that the seed chooses; the strength is not used."""
    if site.item_axis != 0 or len(site.tensor.shape) != _RANK:
        raise site.refuse("shuffling needs items, tokens and features, in this order")
    site.add("Gather", site.value, site.indices(site.generator.permutation(site.tensor.shape[1])), axis=1)


MASK = Mask(
    title="Token shuffling",
    source="a common idea for transformers, whose attention does not see the order; every token's features are there",
    cost="one gather; answers stay where nothing behind the cut depends on the order",
    strength="not used",
    random=False,
    role="negative",
    build=build,
)
