"""Fresh Laplace noise on every number that crosses."""

from __future__ import annotations

from siniantrust.masking._registry import Mask
from siniantrust.masking._site import Site

# The smallest uniform number: it keeps logarithms finite and ends the tails at 16 times the scale.
_LEAST = 1e-7


def build(site: Site) -> None:
    """Add b * (ln U - ln V) to x, U and V even on (0, 1): Laplace noise of standard deviation strength * s.

    A difference of two exponential numbers of scale b is a Laplace number, of variance 2 b².
    """
    first, second = (site.add("Log", site.typed(site.uniform(site.value, low=_LEAST, high=1.0))) for _ in range(2))
    scale = site.constant(site.strength * site.spread / 2**0.5)
    site.add("Add", site.value, site.add("Mul", site.add("Sub", first, second), scale))
    site.note_noise(site.strength * site.spread, information=2.0)


MASK = Mask(
    title="Laplace noise",
    source="Dwork, McSherry, Nissim and Smith, TCC 2006; used at a cut by Mireshghallah et al. 2020 (Shredder)",
    cost="two uniform draws and logarithms for each number; answers get worse with the strength; averaging undoes it",
    strength="standard deviation of the noise, in standard deviations of the tensor",
    random=True,
    role="defence",
    build=build,
)
