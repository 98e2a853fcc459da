"""The patches of an image in a fixed secret order: a negative example, it hides nothing from who learns from pairs."""

from __future__ import annotations

import numpy as np

from siniantrust.masking._registry import Mask
from siniantrust.masking._site import Site

_RANK = 4


def build(site: Site) -> None:
    """Bring the patches of strength x strength places into an order that the seed chooses and that never changes."""
    shape = site.tensor.shape
    side = site.whole("the strength, the patch's side,", site.strength, least=1)
    if site.item_axis != 0 or len(shape) != _RANK or shape[2] % side or shape[3] % side:
        raise site.refuse(f"patches of {side} x {side} need an image with items first and sides that {side} divides")
    channels, height, width = shape[1:]
    # A patch's row lies together in memory, and is moved at once.
    runs = np.arange(site.item_elements // side).reshape(channels, height // side, side, width // side)
    patches = runs.transpose(1, 3, 0, 2).reshape(-1, channels, side)
    mixed = patches[site.generator.permutation(len(patches))].reshape(height // side, width // side, channels, side)
    order = mixed.transpose(2, 0, 3, 1).reshape(-1)
    site.unrolled(site.add("Gather", site.rows(site.value, len(order), side), site.indices(order), axis=1))


MASK = Mask(
    title="Patch shuffling",
    source="Yao et al., Privacy-Preserving Split Learning via Patch Shuffling over Transformers, ICDM 2022, shuffles "
    "anew each time; a fixed order is a linear map (Hoerl and Kennard 1970)",
    cost="one gather; the model's answers are lost unless its second part is trained for the order",
    strength="side of a patch, in places",
    random=False,
    role="negative",
    build=build,
    usual=2.0,
    any_strength=False,
)
