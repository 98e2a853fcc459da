"""Fresh Gaussian noise on every number that crosses."""

from __future__ import annotations

from siniantrust.masking._registry import Mask
from siniantrust.masking._site import Site


def build(site: Site) -> None:
    """Add strength * s * N(0, 1) to x, s the tensor's standard deviation."""
    noise_std = site.strength * site.spread
    site.add("Add", site.value, site.normal(std=noise_std))
    site.note_noise(noise_std, information=1.0)


MASK = Mask(
    title="Gaussian noise",
    source="Dwork and Roth 2014, The Algorithmic Foundations of Differential Privacy, appendix A; here uncalibrated",
    cost="one normal draw for each number; answers get worse with the strength; averaging undoes it",
    strength="standard deviation of the noise, in standard deviations of the tensor",
    random=True,
    role="defence",
    build=build,
)
