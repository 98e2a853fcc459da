"""A few mixtures of the channels: those from which the calibration items can best be restored."""

from __future__ import annotations

import numpy as np

from siniantrust.masking._channels import channel_rows, kept_channels, mix_channels, note_narrowing
from siniantrust.masking._registry import Mask
from siniantrust.masking._site import Site


def build(site: Site) -> None:
    """Send the channels' first principal components, and restore the channels from them on the other side.

    Both maps are weights of the masked model, from which training can go on.
    """
    rows = channel_rows(site)
    kept = kept_channels(site)
    mean = rows.mean(axis=0)
    _, directions = np.linalg.eigh(np.cov(rows - mean, rowvar=False).reshape(len(mean), -1))
    components = directions[:, ::-1][:, :kept].T
    narrow = site.crosses(mix_channels(site, site.value, components, -components @ mean))
    mix_channels(site, narrow, components.T, mean)
    note_narrowing(site, site.item_elements // site.tensor.shape[1] * kept)


MASK = Mask(
    title="Bottleneck",
    source="Eshratifar, Esmaili and Pedram, BottleNet, ISLPED 2019; untrained, the best linear one is that of "
    "principal components (Baldi and Hornik 1989)",
    cost="one product for each channel kept and channel; fewer bytes to send; little is lost and little hidden, "
    "unless it is trained to hide",
    strength="share of the channels that is dropped",
    random=False,
    role="defence",
    build=build,
    usual=0.5,
    any_strength=False,
)
