"""One of a few learned tensors added to each item: Shredder's noise, kept in a bank."""

from __future__ import annotations

from onnx import TensorProto

from siniantrust.masking._learned_noise import PARAMETERS, SOURCE, learn_noise
from siniantrust.masking._registry import Mask
from siniantrust.masking._site import Site

# Rounding must not reach a tensor beyond the last one.
_MARGIN = 1e-4


def build(site: Site) -> None:
    """Add m_k to x, k drawn for every item and query among the learned tensors, of standard deviation strength * s."""
    learned = learn_noise(site)
    count = learned.shape[site.item_axis]
    draw = site.uniform(site.one_each(), low=0.0, high=count - _MARGIN)
    chosen = site.add("Cast", site.add("Floor", draw), to=TensorProto.INT64)
    site.add("Add", site.value, site.add("Gather", site.constant(learned), chosen, axis=site.item_axis))


MASK = Mask(
    title="Learned noise, in a bank",
    source=SOURCE,
    cost="training beforehand; one draw for each item and one addition; answers suffer little, and so do attackers who "
    "know the bank: as with any few fixed tensors, they learn which one it was",
    strength="standard deviation of the learned tensors, in standard deviations of the tensor",
    random=True,
    role="defence",
    build=build,
    parameters=PARAMETERS,
)
