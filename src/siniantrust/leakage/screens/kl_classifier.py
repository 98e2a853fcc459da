"""KL divergence between what a classifier says of the input and of a feature map shown to it as an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._registry import Screen, ScreenScore, ScreenView
from siniantrust.leakage.screens._maps import feature_maps, normalised, rescaled

_MAX_ITEMS, _MAX_CHANNELS = 32, 64
_MIN_ITEMS, _MIN_CHANNELS = 8, 8
_TINY = 1e-12


def score(view: ScreenView, budget: Budget, seed: int) -> ScreenScore | None:
    """Return 1 / (1 + delta); raw: ``delta``, ``kl_min``, ``kl_uniform`` (nats), ``channels`` looked at.

    Each channel j of item x is stretched to the input's range, resized to an image IR_j (the same in every colour)
    and given to the validation classifier F'. The layer's figure is min over j of KL(F'(x) || F'(IR_j)), averaged over
    items; delta is that over the baseline KL(F'(x) || uniform), averaged likewise. delta above 1 means that the
    classifier learns less from any channel than from a guess. None if there is no classifier of images.
    """
    del seed
    if view.classify is None or view.kind != "image":
        return None
    runs = budget.classifier_flops / max(view.classify_flops, 1)
    most = int(np.clip(runs / _MAX_ITEMS, _MIN_CHANNELS, _MAX_CHANNELS))
    count = int(np.clip(runs / most, _MIN_ITEMS, min(_MAX_ITEMS, len(view.inputs))))
    inputs = view.inputs[:count]
    truth = view.classify(inputs)
    maps = normalised(feature_maps(view.features, slice(0, count), most))
    channels = maps.shape[1]
    images = rescaled(maps, *inputs.shape[2:]).reshape(count * channels, 1, *inputs.shape[2:])
    answers = view.classify(np.repeat(images, inputs.shape[1], axis=1)).reshape(count, channels, -1)
    nearest = _divergence(truth[:, None], answers).min(axis=1).mean()
    uniform = _divergence(truth, np.full_like(truth, 1 / truth.shape[1])).mean()
    delta = float(nearest / max(uniform, _TINY))
    raw = {"delta": delta, "kl_min": float(nearest), "kl_uniform": float(uniform), "channels": float(channels)}
    return ScreenScore(score=1 / (1 + delta), raw=raw)


def pick(scores: Sequence[ScreenScore]) -> int | None:
    """Return the earliest cut at which delta is above 1 and stays there."""
    start = len(scores)
    while start > 0 and scores[start - 1].raw["delta"] > 1:
        start -= 1
    return start if start < len(scores) else None


def _divergence(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return KL(first || second) in nats over the last axis."""
    first, second = np.maximum(first, _TINY), np.maximum(second, _TINY)
    result: np.ndarray = (first * np.log(first / second)).sum(axis=-1)
    return result


SCREEN = Screen(
    title="KL divergence by a validation classifier (DeepEnclave)",
    source=(
        "Gu et al. 2018, Securing Input Data of Deep Learning Inference Systems via Partitioned Enclave Execution, "
        "arXiv 1807.00969; the validation classifier is the audited model itself"
    ),
    cost="as long as the classifier takes for every channel of every item, within the budget",
    score=score,
    pick=pick,
)
