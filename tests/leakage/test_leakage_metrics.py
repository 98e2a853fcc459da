from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from leakage_cases import photo_tiles

from siniantrust.leakage._estimates import bootstrap_upper, estimates, prior_scores
from siniantrust.leakage._metrics import measure, reidentified, ssim_per_item


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [7, 16])
def test_ssim_equals_scikit_image(channels: int, side: int) -> None:
    """Our structural similarity is scikit-image's, for grey and colour, down to the smallest allowed size."""
    first = photo_tiles(40)[:, :channels, :side, :side]
    second = np.clip(first + np.random.default_rng(0).normal(0, 0.1, first.shape), 0, 1).astype(np.float32)
    metrics: Any = importlib.import_module("skimage.metrics")
    expected = [
        metrics.structural_similarity(a.astype(np.float64), b.astype(np.float64), channel_axis=0, data_range=1.0)
        for a, b in zip(first, second, strict=True)
    ]
    np.testing.assert_allclose(ssim_per_item(second, first), expected, atol=1e-9)


def test_perfect_reconstructions_leak_one() -> None:
    """Every metric of a perfect reconstruction is corrected to exactly 1, its bound included."""
    tiles = photo_tiles(200)
    known, held = tiles[:100], tiles[100:]
    leakage = estimates(measure(held, held, "image"), prior_scores(known, held, "image"), seed=0)
    assert set(leakage) == {"ssim", "nmse", "reidentification"}
    for figure in leakage.values():
        assert figure.mean == pytest.approx(1)
        assert figure.upper == pytest.approx(1)
        assert figure.worst_5pct == pytest.approx(1)


def test_the_prior_attacker_leaks_nothing() -> None:
    """Answering with the mean of the attacker's items is corrected to 0 in every metric."""
    tiles = photo_tiles(200)
    known, held = tiles[:100], tiles[100:]
    guess = np.broadcast_to(known.mean(axis=0), held.shape)
    leakage = estimates(measure(guess, held, "image"), prior_scores(known, held, "image"), seed=0)
    assert leakage["ssim"].mean == pytest.approx(0, abs=1e-6)
    assert leakage["nmse"].mean == pytest.approx(0, abs=1e-6)
    assert leakage["reidentification"].mean == pytest.approx(0, abs=0.011)


def test_worse_than_the_prior_is_negative() -> None:
    """Nothing is clipped: an attack worse than the prior shows a negative figure."""
    tiles = photo_tiles(200)
    known, held = tiles[:100], tiles[100:]
    leakage = estimates(measure(1 - held, held, "image"), prior_scores(known, held, "image"), seed=0)
    assert leakage["nmse"].mean < 0
    assert leakage["ssim"].mean < 0


def test_flat_reconstructions_identify_nobody() -> None:
    """Reconstructions without a pattern score the prior 1 / N, whichever item they happen to be near."""
    held = photo_tiles(50)
    assert reidentified(np.full_like(held, 0.3), held).mean() == pytest.approx(1 / 50)


def test_equal_originals_share_a_hit() -> None:
    """Of two equal originals a perfect reconstruction cannot tell which: each counts half."""
    held = np.concatenate([photo_tiles(10), photo_tiles(10)])
    np.testing.assert_allclose(reidentified(held, held), 0.5)


def test_no_hit_is_no_certainty() -> None:
    """Without a single hit among N items the bound of re-identification is the exact binomial one, about 3 / N."""
    tiles = photo_tiles(200)
    known, held = tiles[:100], tiles[100:]
    wrong = np.roll(held, 1, axis=0)
    figure = estimates(measure(wrong, held, "image"), prior_scores(known, held, "image"), seed=0)["reidentification"]
    assert figure.raw == 0
    assert figure.upper == pytest.approx((1 - 0.05 ** (1 / 100) - 0.01) / 0.99)


def test_ssim_is_for_images_of_seven_pixels_or_more() -> None:
    """Data that are no images, and images too small for the window, have no SSIM."""
    rows = np.random.default_rng(0).random((20, 9)).astype(np.float32)
    assert set(measure(rows, rows, "array")) == {"nmse", "reidentification"}
    tiny = rows.reshape(20, 1, 3, 3)
    assert set(measure(tiny, tiny, "image")) == {"nmse", "reidentification"}


@settings(max_examples=30, deadline=None)
@given(some.lists(some.floats(-1, 1), min_size=5, max_size=60), some.integers(0, 5))
def test_the_bound_lies_within_the_items(gains: list[float], seed: int) -> None:
    """The bootstrap bound lies between the smallest and the largest item, and is the same for the same seed."""
    gained, possible = np.array(gains), np.ones(len(gains))
    bound = bootstrap_upper(gained, possible, seed=seed)
    assert gained.min() - 1e-9 <= bound <= gained.max() + 1e-9
    assert bound == bootstrap_upper(gained, possible, seed=seed)


@settings(max_examples=15, deadline=None)
@given(some.integers(0, 1000), some.floats(0, 0.5))
def test_the_bound_is_never_below_the_mean(seed: int, noise: float) -> None:
    """Every metric's upper bound is at least its mean."""
    tiles = photo_tiles(80)
    known, held = tiles[:40], tiles[40:]
    guess = (held + np.random.default_rng(seed).normal(0, noise, held.shape)).astype(np.float32)
    for figure in estimates(measure(guess, held, "image"), prior_scores(known, held, "image"), seed=seed).values():
        assert figure.upper >= figure.mean


def test_the_bound_is_that_of_a_mean_of_normal_items() -> None:
    """For many normal items the bootstrap bound is the mean plus 1.645 standard errors, within sampling error."""
    gained = np.random.default_rng(0).normal(0.3, 1, 900)
    expected = gained.mean() + 1.645 * gained.std() / 30
    assert bootstrap_upper(gained, np.ones(900), seed=0) == pytest.approx(expected, abs=0.005)
