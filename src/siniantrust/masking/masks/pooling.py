"""Means over windows instead of the values at every place."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from siniantrust.masking._channels import note_narrowing
from siniantrust.masking._registry import Mask
from siniantrust.masking._site import Site

_RANK = 4


def build(site: Site) -> None:
    """Send the mean of every window of strength x strength places, and repeat it over the window on the other side."""
    shape = site.tensor.shape
    side = site.whole("the strength, the window's side,", site.strength, least=1)
    if site.item_axis != 0 or len(shape) != _RANK or shape[2] % side or shape[3] % side:
        raise site.refuse(f"windows of {side} x {side} need an image with items first and sides that {side} divides")
    single = site.tensor.dtype == "float32"
    image = site.value if single else site.add("Cast", site.value, to=TensorProto.FLOAT)
    narrow = site.crosses(site.add("AveragePool", image, kernel_shape=[side, side], strides=[side, side]))
    if not single:
        narrow = site.crosses(site.typed(narrow))
        narrow = site.add("Cast", narrow, to=TensorProto.FLOAT)
    spread = site.single(np.ones((shape[1], 1, side, side)))
    site.typed(site.add("ConvTranspose", narrow, spread, group=shape[1], strides=[side, side]))
    note_narrowing(site, site.item_elements // side**2)


MASK = Mask(
    title="Pooling",
    source="the base of an image pyramid: Burt and Adelson 1983",
    cost="one pass over the tensor; fewer bytes to send; detail is lost to answers and attackers alike",
    strength="side of the window, in places",
    random=False,
    role="defence",
    build=build,
    usual=2.0,
    any_strength=False,
)
