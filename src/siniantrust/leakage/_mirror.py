"""Mirror images of what the attacker knows: turned round, a picture is a picture still, and costs one more query."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from siniantrust.leakage._data import Data
from siniantrust.leakage._split import Split
from siniantrust.leakage._targets import data_kind


def with_mirror_images(data: Data, split: Split, *, most: int) -> tuple[Data, Split]:
    """Fill the attacker's items up to ``most`` with their mirror images, if they are images.

    Each follows its original, and those that have one are spread evenly, so that half of the rows is half of the items.
    Labels, transcripts and the model's other inputs are those of the original.
    """
    real = len(split.attacker)
    extra = min(real, most - real)
    if extra <= 0 or data.sample_rate_hz is not None or data_kind(data.inputs.shape[1:]) != "image":
        return data, split
    chosen = np.unique(np.linspace(0, real - 1, extra).astype(int))
    rows = split.attacker[chosen]

    def extended(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else np.concatenate([values, values[rows]])

    mirrored = replace(
        data,
        inputs=np.concatenate([data.inputs, data.inputs[rows][..., ::-1]]),
        labels=extended(data.labels),
        others={name: np.concatenate([values, values[rows]]) for name, values in data.others.items()},
        heldout=None,
        attribute=extended(data.attribute),
        transcript=extended(data.transcript),
    )
    numbers = len(data) + np.arange(len(rows))
    return mirrored, replace(split, attacker=np.insert(split.attacker, chosen + 1, numbers))
