"""Few levels instead of floating-point numbers."""

from __future__ import annotations

from siniantrust.masking._registry import Mask
from siniantrust.masking._site import Site


def build(site: Site) -> None:
    """Clip x to the calibrated range and round it to multiples of strength * s from its lower end.

    That leaves (high - low) / (strength * s) + 1 levels. Their numbers cross; the other side makes levels of them.
    """
    if site.strength == 0:
        raise site.refuse("quantisation needs a step, a strength above 0")
    step = site.strength * site.spread
    site.at_level(site.nearest_level(step), step)
    site.facts["levels"] = int((site.high - site.low) / step + 0.5) + 1


MASK = Mask(
    title="Quantisation",
    source="Bennett 1948, Spectra of quantized signals",
    cost="a few passes over the tensor; fewer bytes to send; answers get worse with the step",
    strength="the step, in standard deviations of the tensor",
    random=False,
    role="defence",
    build=build,
)
