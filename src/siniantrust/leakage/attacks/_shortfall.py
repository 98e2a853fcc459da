"""What attacks choose their settings by."""

from __future__ import annotations

import torch

from siniantrust.leakage._similarity import WINDOW, ssim


def shortfall(answer: torch.Tensor, truth: torch.Tensor, *, image: bool) -> torch.Tensor:
    """Return for each item (N,) how far a reconstruction falls short: squared error, plus 1 - SSIM for images."""
    variance = (truth - truth.mean(dim=0)).square().mean().clamp_min(1e-6)
    error = (answer - truth).square().flatten(1).mean(dim=1) / variance
    structural = image and min(truth.shape[2:]) >= WINDOW
    return error + 1 - ssim(answer, truth) if structural else error
