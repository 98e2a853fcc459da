"""UnSplit-like inversion: from features alone, without Part 1's weights and without any data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

_INPUT_RATE = 0.05
_MODEL_RATE = 1e-2
_SMOOTHNESS = 1e-3


def unsplit(
    features: torch.Tensor,
    make_model: Callable[[], nn.Module],
    shape: tuple[int, ...],
    *,
    rounds: int,
    inner: int,
    seed: int,
) -> torch.Tensor:
    """Return images that, with weights found along with them, give the features that were seen.

    Inputs and the weights of a model of the same architecture are sought by turns, ``inner`` steps each; the inputs
    stay in 0..1 and are kept smooth by total variation.

    Source: Erdogan, Küpçü and Çiçek, "UnSplit: Data-Oblivious Model Inversion, Model Stealing, and Label Inference
    Attacks Against Split Learning", WPES 2022.

    Args:
        features: what the cloud has seen, (items, ...).
        make_model: makes Part 1's architecture with weights of its own.
        shape: of one image (channels, height, width).
        rounds: how often inputs and weights take turns.
        inner: steps in a turn.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    model = make_model()
    images = torch.full((len(features), *shape), 0.5, requires_grad=True)
    input_optimiser = torch.optim.Adam([images], _INPUT_RATE, amsgrad=True)
    model_optimiser = torch.optim.Adam(model.parameters(), _MODEL_RATE, amsgrad=True)
    for _ in range(rounds):
        for _ in range(inner):
            input_optimiser.zero_grad()
            loss = nn.functional.mse_loss(model(images), features) + _SMOOTHNESS * _variation(images)
            loss.backward()  # type: ignore[no-untyped-call]
            input_optimiser.step()
            with torch.no_grad():
                images.clamp_(0, 1)
        for _ in range(inner):
            model_optimiser.zero_grad()
            nn.functional.mse_loss(model(images.detach()), features).backward()  # type: ignore[no-untyped-call]
            model_optimiser.step()
    return images.detach()


def _variation(images: torch.Tensor) -> torch.Tensor:
    rows, columns = images.diff(dim=2), images.diff(dim=3)
    return rows.abs().mean() + columns.abs().mean()
