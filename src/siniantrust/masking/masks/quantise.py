"""Few levels instead of floating-point numbers."""

from __future__ import annotations

from siniantrust.masking._registry import Mask, MaskError
from siniantrust.masking._site import Site


def build(site: Site) -> None:
    """Clip x to the calibrated range and round it to multiples of strength * s from its lower end.

    That leaves (high - low) / (strength * s) + 1 levels.
    """
    if site.strength == 0:
        raise MaskError(f"tensor '{site.value}': quantisation needs a step, a strength above 0")
    step, low = site.constant(site.strength * site.spread), site.constant(site.low)
    steps = site.add("Div", site.add("Sub", site.clipped(site.value, site.low, site.high), low), step)
    level = site.add("Floor", site.add("Add", steps, site.constant(0.5)))
    site.add("Add", site.add("Mul", level, step), low)


MASK = Mask(
    title="Quantisation",
    source="Bennett 1948, Spectra of quantized signals",
    cost="a few passes over the tensor; fewer bytes to send; answers get worse with the step",
    random=False,
    role="defence",
    build=build,
)
