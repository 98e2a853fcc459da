"""Some channels only: the others stay, and the other side predicts them from those that crossed."""

from __future__ import annotations

import numpy as np

from siniantrust.masking._channels import channel_rows, kept_channels, mix_channels, note_narrowing
from siniantrust.masking._registry import Mask
from siniantrust.masking._site import Site


def build(site: Site) -> None:
    """Send the channels of most variance; restore the others by the linear map that fits the calibration items best.

    The map is least squares with an intercept, with 1e-6 of the mean variance on its diagonal.
    """
    rows = channel_rows(site)
    kept = kept_channels(site)
    chosen = np.sort(np.argsort(-rows.var(axis=0), kind="stable")[:kept])
    narrow = site.crosses(site.add("Gather", site.value, site.indices(chosen), axis=1))
    mean = rows.mean(axis=0)
    centred = rows - mean
    some = centred[:, chosen]
    ridge = 1e-6 * max(float(rows.var()), 1e-12) * len(rows) * np.eye(kept)
    back = np.linalg.solve(some.T @ some + ridge, some.T @ centred).T
    back[chosen] = np.eye(kept)  # what crossed is known
    mix_channels(site, narrow, back, mean - back @ mean[chosen])
    note_narrowing(site, site.item_elements // site.tensor.shape[1] * kept)


MASK = Mask(
    title="Channel pruning",
    source="Singh et al., DISCO, CVPR 2021, prune channels by learning which; here those of most variance stay",
    cost="one gather; fewer bytes to send; answers get worse with the share, less so after re-training",
    strength="share of the channels that is dropped",
    random=False,
    role="defence",
    build=build,
    usual=0.5,
    any_strength=False,
)
