"""A discriminator, as in a GAN, trained to tell feature maps from inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._plateau import plateau
from siniantrust.leakage._registry import Screen, ScreenScore, ScreenView
from siniantrust.leakage.screens._maps import feature_maps, normalised, rescaled

_SIDE = 32
_MAX_CHANNELS = 32
_BATCH = 64
_TEST_ITEMS = 64


def score(view: ScreenView, budget: Budget, seed: int) -> ScreenScore | None:
    """Return how well the most input-like channel fools the discriminator: 2 (1 - its accuracy), 1 for chance.

    Inputs (grey) and feature maps are stretched to 0..1 and resized to 32 x 32. The discriminator is trained on maps
    of all channels against inputs, half and half, on three quarters of the items; its balanced accuracy is taken on
    the rest, channel by channel. Raw: ``accuracy_min``, ``accuracy_mean``, ``accuracy_max`` over channels. None for
    data that are no images.
    """
    if view.kind != "image":
        return None
    import torch

    from siniantrust.leakage.screens._discriminator import train_discriminator

    count = min(budget.screen_items, len(view.inputs))
    held = min(_TEST_ITEMS, max(1, count // 4))
    grey = view.inputs[:count].mean(axis=1, keepdims=True)
    inputs = torch.as_tensor(rescaled(normalised(grey), _SIDE, _SIDE))
    maps = torch.as_tensor(
        rescaled(normalised(feature_maps(view.features, slice(0, count), _MAX_CHANNELS)), _SIDE, _SIDE)
    )
    judge = train_discriminator(inputs[held:], maps[held:], steps=budget.discriminator_steps, batch=_BATCH, seed=seed)
    with torch.no_grad():
        true_inputs = float((judge(inputs[:held]) > 0).float().mean())
        tested = maps[:held]
        verdicts = judge(tested.reshape(-1, 1, _SIDE, _SIDE)).reshape(held, -1)
        true_maps = (verdicts <= 0).float().mean(dim=0).numpy()
    accuracy = (true_inputs + true_maps) / 2
    raw = {
        "accuracy_min": float(np.min(accuracy)),
        "accuracy_mean": float(np.mean(accuracy)),
        "accuracy_max": float(np.max(accuracy)),
    }
    return ScreenScore(score=2 * (1 - raw["accuracy_min"]), raw=raw)


def pick(scores: Sequence[ScreenScore]) -> int | None:
    """Return where the share of fooled verdicts has reached its plateau."""
    return plateau([entry.score for entry in scores])


SCREEN = Screen(
    title="GAN discriminator (feature maps against inputs)",
    source="SinianTrust talk (Alibaba Cloud, ODLA.trust); discriminator: Goodfellow et al., NeurIPS 2014",
    cost="about a second at a cut: a small discriminator is trained",
    score=score,
    pick=pick,
)
