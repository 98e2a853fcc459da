"""Fresh noise instead of the values: a reference that hides all."""

from __future__ import annotations

from siniantrust.masking._registry import Mask
from siniantrust.masking._site import Site


def build(site: Site) -> None:
    """Give m + strength * s * N(0, 1), with the tensor's mean m and standard deviation s on the calibration items."""
    site.normal(mean=site.mean, std=site.strength * site.spread)


MASK = Mask(
    title="Noise alone",
    source="what crosses does not depend on the input",
    cost="one normal draw for each number; the model's answers are lost",
    strength="standard deviation of the noise, in standard deviations of the tensor",
    random=True,
    role="reference",
    build=build,
)
