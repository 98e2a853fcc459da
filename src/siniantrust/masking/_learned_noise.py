"""Noise that is learned: as large as it is told to be, and as harmless to the model's answers as training makes it."""

from __future__ import annotations

import numpy as np

from siniantrust._extras import require
from siniantrust.masking._registry import Parameter
from siniantrust.masking._site import Site

SOURCE = "Mireshghallah et al., Shredder, ASPLOS 2020; here with the noise's size held instead of rewarded"
PARAMETERS = (
    Parameter("count", 8, "tensors that are learned, each from another start"),
    Parameter("steps", 60, "steps of training for each"),
)


def learn_noise(site: Site) -> np.ndarray:
    """Return learned tensors (count, *item shape), each with mean 0 and standard deviation strength * s.

    Each starts from Laplace noise. Its direction is then trained (Adam) so that the model, of which nothing else
    changes, answers on the calibration items as without it: cross-entropy to its own softmax where it gives scores of
    classes, else the squared difference. Shredder adds the noise's size to the loss, with a weight to be tuned; here
    the size is held, which is the same problem with the bound in the place of the weight.

    Raises:
        MissingExtraError: if torch is not installed.
        DeviceError: if torch cannot run the part of the model behind the cut.
    """
    count = site.whole("count", site.parameters["count"], least=1)
    steps = site.whole("steps", site.parameters["steps"], least=0)
    axis = site.item_axis
    one = tuple(1 if place == axis else size for place, size in enumerate(site.tensor.shape))
    starts = [site.generator.laplace(size=one) for _ in range(count)]
    if site.strength and steps:
        require("torch", extra="leakage")
        from siniantrust.masking._noise_training import train_direction

        starts = [train_direction(site, start, steps=steps) for start in starts]
    learned: np.ndarray = np.concatenate([scaled(site, start) for start in starts], axis=axis)
    return learned


def scaled(site: Site, direction: np.ndarray) -> np.ndarray:
    """Return noise of a direction: mean 0 and the standard deviation that the strength says."""
    centred = direction - direction.mean()
    found: np.ndarray = centred * (site.strength * site.spread / max(float(centred.std()), 1e-12))
    return found
