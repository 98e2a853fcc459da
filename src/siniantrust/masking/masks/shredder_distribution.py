"""Noise from a learned distribution added to each number: Shredder's noise, drawn anew."""

from __future__ import annotations

import numpy as np

from siniantrust.masking._learned_noise import PARAMETERS, SOURCE, learn_noise
from siniantrust.masking._registry import Mask
from siniantrust.masking._site import Site

# The smallest uniform number: it keeps logarithms finite and ends the tails at 16 times the scale.
_LEAST = 1e-7


def build(site: Site) -> None:
    """Add Laplace noise to x, with a place and a scale for each number, fitted to the learned tensors.

    The place is their median at that number and the scale their mean distance from it, the maximum-likelihood fit.
    Shredder fits one scale to each tensor and keeps the order of its numbers; here each number has its own.
    """
    learned = learn_noise(site)
    axis = site.item_axis
    place = np.median(learned, axis=axis, keepdims=True)
    scale = np.abs(learned - place).mean(axis=axis, keepdims=True)
    first, second = (site.add("Log", site.typed(site.uniform(site.value, low=_LEAST, high=1.0))) for _ in range(2))
    fresh = site.add("Mul", site.add("Sub", first, second), site.constant(scale))
    site.add("Add", site.value, site.add("Add", fresh, site.constant(place)))


MASK = Mask(
    title="Learned noise, from a distribution",
    source=SOURCE,
    cost="training beforehand; two uniform draws and logarithms for each number; averaging leaves the fixed part, "
    "which an attacker learns",
    strength="standard deviation of the learned tensors, in standard deviations of the tensor",
    random=True,
    role="defence",
    build=build,
    parameters=PARAMETERS,
)
