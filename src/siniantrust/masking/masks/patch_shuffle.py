"""The patches of an image in a fixed secret order: a negative example, it hides nothing from who learns from pairs."""

from __future__ import annotations

import numpy as np

from siniantrust.masking._registry import Mask
from siniantrust.masking._site import Site

_RANK = 4
# Up to here a product with a matrix of zeros and ones is faster than ONNX Runtime's copies, and as exact.
_FEW_PLACES = 64


def build(site: Site) -> None:
    """Bring the patches of strength x strength places into an order that the seed chooses and that never changes."""
    shape = site.tensor.shape
    side = site.whole("the strength, the patch's side,", site.strength, least=1)
    if site.item_axis != 0 or len(shape) != _RANK or shape[2] % side or shape[3] % side:
        raise site.refuse(f"patches of {side} x {side} need an image with items first and sides that {side} divides")
    channels, height, width = shape[1:]
    places = np.arange(height * width).reshape(height // side, side, width // side, side)
    patches = places.transpose(0, 2, 1, 3).reshape(-1, side, side)
    mixed = patches[site.generator.permutation(len(patches))].reshape(height // side, width // side, side, side)
    order = mixed.transpose(0, 2, 1, 3).reshape(-1)
    if len(order) <= _FEW_PLACES:
        moves = site.constant(np.eye(len(order))[:, order])
        moved = site.add("MatMul", site.rows(site.value, channels, len(order)), moves)
    else:
        # A patch's row lies together in memory, and is copied at once.
        rows = site.rows(site.value, channels, len(order) // side, side)
        moved = site.add("Gather", rows, site.indices(order[::side] // side), axis=2)
    site.unrolled(moved)


MASK = Mask(
    title="Patch shuffling",
    source="Yao et al., Privacy-Preserving Split Learning via Patch Shuffling over Transformers, ICDM 2022, shuffles "
    "anew each time; a fixed order is a linear map (Hoerl and Kennard 1970)",
    cost="one gather, or one product for a small image; the model's answers are lost unless its second part is trained "
    "for the order",
    strength="side of a patch, in places",
    random=False,
    role="negative",
    build=build,
    usual=2.0,
    any_strength=False,
)
