"""Structural similarity in torch, equal to scikit-image's, fast enough to train with."""

from __future__ import annotations

import torch

WINDOW = 7
_K1, _K2 = 0.01, 0.03


def ssim(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the mean structural similarity of each pair of images, (N,), for a data range of 1.

    Images are (N, C, H, W) with sides of at least 7. Window 7 x 7, uniform weights, sample covariance, mean over
    channels and over windows that lie inside the image: what ``skimage.metrics.structural_similarity`` computes by
    default (Wang, Bovik, Sheikh, Simoncelli 2004).
    """
    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    mean_1, mean_2 = _average(first), _average(second)
    variance_1 = unbiased * (_average(first * first) - mean_1 * mean_1)
    variance_2 = unbiased * (_average(second * second) - mean_2 * mean_2)
    covariance = unbiased * (_average(first * second) - mean_1 * mean_2)
    c_1, c_2 = _K1**2, _K2**2
    numerator = (2 * mean_1 * mean_2 + c_1) * (2 * covariance + c_2)
    denominator = (mean_1**2 + mean_2**2 + c_1) * (variance_1 + variance_2 + c_2)
    return (numerator / denominator).mean(dim=(1, 2, 3))


def _average(images: torch.Tensor) -> torch.Tensor:
    # Rows, then columns, as sums of shifted images: several times faster than a pooling of overlapping windows.
    return _sums_of_seven(_sums_of_seven(images, 2), 3) / WINDOW**2


def _sums_of_seven(images: torch.Tensor, axis: int) -> torch.Tensor:
    kept = images.shape[axis] - WINDOW + 1
    twos = images.narrow(axis, 0, kept + 5) + images.narrow(axis, 1, kept + 5)
    fours = twos.narrow(axis, 0, kept) + twos.narrow(axis, 2, kept)
    return fours + twos.narrow(axis, 4, kept) + images.narrow(axis, 6, kept)
