"""One of a small bank of fixed tensors added to each item: a negative example, few keys are soon known."""

from __future__ import annotations

from onnx import TensorProto

from siniantrust.masking._registry import Mask
from siniantrust.masking._site import Site

COUNT = 20
"""Tensors in the bank."""
# Rounding must not reach a tensor beyond the last one.
_MARGIN = 1e-4


def build(site: Site) -> None:
    """Add m_k to x, k drawn for every item and query among 20 tensors that are normal with strength * s."""
    axis = site.item_axis
    shape = tuple(COUNT if place == axis else size for place, size in enumerate(site.tensor.shape))
    bank = site.constant(site.strength * site.spread * site.generator.standard_normal(shape))
    drawn = site.add(
        "Cast", site.add("Floor", site.uniform(site.one_each(), low=0.0, high=COUNT - _MARGIN)), to=TensorProto.INT64
    )
    site.add("Add", site.value, site.add("Gather", bank, drawn, axis=axis))


MASK = Mask(
    title="Bank of fixed masks",
    source="keys used again: Shannon 1949 proves secrecy for a fresh key only",
    cost="one draw for each item, one addition; the model's answers are lost unless its second part knows the draw",
    strength="standard deviation of the added tensors, in standard deviations of the tensor",
    random=True,
    role="negative",
    build=build,
)
