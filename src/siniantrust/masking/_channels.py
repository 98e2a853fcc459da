"""Channels of a tensor that are mixed linearly, and what is known of them from the calibration items."""

from __future__ import annotations

import numpy as np

from siniantrust.masking._site import Site

_ROWS, _IMAGES = 2, 4  # ranks


def channel_rows(site: Site) -> np.ndarray:
    """Return the calibration values, (rows, channels): one row for every item and place.

    Raises:
        MaskError: if the tensor has no axis of channels behind that of its items.
    """
    shape = site.tensor.shape
    if site.item_axis != 0 or len(shape) < _ROWS:
        raise site.refuse("this mask needs items along the first axis and channels along the second")
    rows: np.ndarray = np.moveaxis(site.values, 1, -1).reshape(-1, shape[1])
    return rows


def kept_channels(site: Site) -> int:
    """Return how many channels are left when the strength says which share of them to drop; at least one."""
    channels = site.tensor.shape[1]
    return max(round((1 - site.require_share("the share of channels that is dropped")) * channels), 1)


def mix_channels(site: Site, value: str, matrix: np.ndarray, offset: np.ndarray) -> str:
    """Add nodes that give ``matrix`` (out, in) times the channels plus ``offset`` (out,), at every place.

    Images of float32 are convolved with a window of one, which any runtime and the lowering to C can do; other tensors
    are multiplied as matrices.
    """
    shape = site.tensor.shape
    outputs, inputs = matrix.shape
    if len(shape) == _ROWS:
        return site.add("Add", site.add("MatMul", value, site.weight(matrix.T)), site.weight(offset))
    if len(shape) == _IMAGES and site.tensor.dtype == "float32":
        kernel = matrix.reshape(outputs, inputs, 1, 1)
        return site.add("Conv", value, site.weight(kernel), site.weight(offset))
    places = shape[2:]
    flat = site.add("Reshape", value, site.indices([-1, inputs, int(np.prod(places))]))
    mixed = site.add("Add", site.add("MatMul", site.weight(matrix), flat), site.weight(offset[:, None]))
    return site.add("Reshape", mixed, site.indices([-1, outputs, *places]))


def note_narrowing(site: Site, crossing_elements: int) -> None:
    """Note how many numbers of an item cross, and of how many."""
    site.facts["crossing_elements"] = crossing_elements
    site.facts["tensor_elements"] = site.item_elements
