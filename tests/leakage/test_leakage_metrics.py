from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from leakage_cases import photo_tiles

from siniantrust.leakage._estimates import estimate_seeds, estimates, resampled_ratios
from siniantrust.leakage._metrics import Scores, measure, reidentified, ssim_per_item
from siniantrust.leakage._priors import class_prior, nearest_prior, prior_scores


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
    """Bootstrap resamples lie between the smallest and the largest item, and are the same for the same seed."""
    gained, possible = np.array(gains), np.ones(len(gains))
    ratios = resampled_ratios(gained, possible, seed=seed)
    assert gained.min() - 1e-9 <= ratios.min() <= ratios.max() <= gained.max() + 1e-9
    np.testing.assert_array_equal(ratios, resampled_ratios(gained, possible, seed=seed))


@settings(max_examples=15, deadline=None)
@given(some.integers(0, 1000), some.floats(0, 0.5))
def test_the_bounds_enclose_the_mean(seed: int, noise: float) -> None:
    """Every metric's upper bound is at least its mean, and its lower bound at most."""
    tiles = photo_tiles(80)
    known, held = tiles[:40], tiles[40:]
    guess = (held + np.random.default_rng(seed).normal(0, noise, held.shape)).astype(np.float32)
    for figure in estimates(measure(guess, held, "image"), prior_scores(known, held, "image"), seed=seed).values():
        assert figure.lower is not None
        assert figure.upper >= figure.mean >= figure.lower


def test_the_bound_is_that_of_a_mean_of_normal_items() -> None:
    """For many normal items the bootstrap bound is the mean plus 1.645 standard errors, within sampling error."""
    gained = np.random.default_rng(0).normal(0.3, 1, 900)
    ratios = resampled_ratios(gained, np.ones(900), seed=0)
    error = gained.std() / 30
    assert np.quantile(ratios, 0.95) == pytest.approx(gained.mean() + 1.645 * error, abs=0.005)
    assert np.quantile(ratios, 0.05) == pytest.approx(gained.mean() - 1.645 * error, abs=0.005)


def test_the_luckiest_seed_counts() -> None:
    """Over several seeds the mean is that of all, and the upper bound is that of the run that leaked most."""
    rng = np.random.default_rng(0)
    runs = [Scores(rng.normal(level, 0.1, 400), perfect=1.0) for level in (0.2, 0.6, 0.3)]
    prior = Scores(np.zeros(400), perfect=1.0)
    found = estimate_seeds(runs, prior, "ssim", seed=0)
    assert found.mean == pytest.approx(np.mean(found.by_seed))
    assert found.by_seed[1] == max(found.by_seed) == pytest.approx(0.6, abs=0.02)
    assert found.by_seed[1] < found.upper < 0.65
    assert found.lower is not None
    assert 0.15 < found.lower < found.by_seed[0]


def test_no_bound_is_below_the_prior() -> None:
    """Whoever does worse than the prior could have answered as the prior does: the upper bound is at least 0."""
    tiles = photo_tiles(200)
    known, held = tiles[:100], tiles[100:]
    figure = estimates(measure(1 - held, held, "image"), prior_scores(known, held, "image"), seed=0)["nmse"]
    assert figure.mean < 0
    assert figure.upper == 0


def test_an_attack_on_some_items_is_held_against_the_prior_on_them() -> None:
    """Reconstructions of the first items alone are scored against their own prior, in the gallery of all originals."""
    tiles = photo_tiles(200)
    known, held = tiles[:100], tiles[100:]
    found = measure(held[:10], held, "image")
    assert {len(scores.values) for scores in found.values()} == {10}
    for figure in estimates(found, prior_scores(known, held, "image"), seed=0).values():
        assert figure.mean == pytest.approx(1)
    # One of the ten is a copy of an item that was not inverted: the gallery still holds both.
    held = np.concatenate([held, held[:1]])
    assert measure(held[:10], held, "image")["reidentification"].values[0] == pytest.approx(0.5)


def test_tokens_are_scored_by_position() -> None:
    """Token reconstructions score the share of right positions; the prior answers each position's commonest token."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 50, (120, 6))
    tokens[:, 0] = 7
    known, held = tokens[:60], tokens[60:]
    guess = held.copy()
    guess[:, 5] = -1
    found = measure(guess, held, "token")
    assert set(found) == {"token", "reidentification"}
    np.testing.assert_allclose(found["token"].values, 5 / 6)
    prior = prior_scores(known, held, "token")
    assert prior["token"].values.min() >= 1 / 6
    figure = estimates(found, prior, seed=0)
    assert 0.7 < figure["token"].mean < 5 / 6
    assert figure["reidentification"].mean == pytest.approx(1, abs=0.05)


def test_stronger_priors_are_stronger() -> None:
    """The nearest of the attacker's own items, and the class's mean, come nearer to the originals than the mean."""
    tiles = photo_tiles(300)
    classes = (tiles.mean(axis=(1, 2, 3)) > np.median(tiles.mean(axis=(1, 2, 3)))).astype(int)
    known, held = tiles[:200], tiles[200:]
    mean = prior_scores(known, held, "image")["nmse"].values.mean()
    by_class = class_prior(known, classes[:200], held, classes[200:], "image")["nmse"].values.mean()
    nearest = nearest_prior(known, held, "image")["nmse"].values.mean()
    assert nearest < by_class < mean
    np.testing.assert_allclose(nearest_prior(tiles, held, "image")["nmse"].values, 0, atol=1e-9)
