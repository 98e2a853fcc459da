from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from leakage_cases import SMALL, photo_tiles, view_of

from siniantrust.leakage import ScreenScore, list_screens
from siniantrust.leakage._plateau import plateau
from siniantrust.leakage._ranking import rank_correlation
from siniantrust.leakage.screens import kl_classifier

# Those that look at values alone; ``fisher`` needs the network, and noise spreads within classes as well.
SCREENS = sorted(set(list_screens()) - {"fisher"})
AGAINST_NOISE = sorted(set(SCREENS) - {"intra_class_radius"})


def _classify(images: np.ndarray) -> np.ndarray:
    """Tell images by which of their quarters is brightest, whatever their brightness and contrast as a whole."""
    images = images.mean(axis=1, keepdims=True)
    images = images - images.mean(axis=(2, 3), keepdims=True)
    images = images / np.maximum(images.std(axis=(2, 3), keepdims=True), 1e-6)
    half = images.shape[2] // 2
    quarters = [images[:, :, y : y + half, x : x + half].mean(axis=(1, 2, 3)) for y in (0, half) for x in (0, half)]
    powers = np.exp(3 * np.stack(quarters, axis=1))
    shares: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _score(name: str, values: np.ndarray) -> ScreenScore:
    found = list_screens()[name].score(view_of(values, photo_tiles(120), _classify), SMALL, 0)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "gan_discriminator")) for name in AGAINST_NOISE]
)
def test_the_input_itself_scores_above_noise(name: str) -> None:
    """Every screen gives features that are the input a higher score than features that are noise."""
    noise = np.random.default_rng(0).normal(size=(120, 3, 16, 16)).astype(np.float32)
    assert _score(name, photo_tiles(120)).score > _score(name, noise).score + 0.05


@pytest.mark.parametrize("name", SCREENS)
@pytest.mark.parametrize("shape", [(5, 8, 8), (33,), (6, 10), (4, 32, 32)])
def test_every_form_of_features_gets_a_finite_score(name: str, shape: tuple[int, ...]) -> None:
    """Maps of any size, vectors and sequences get a finite score and finite raw figures, constant ones too."""
    values = np.random.default_rng(0).normal(size=(120, *shape)).astype(np.float32)
    values[:, 0] = 2.5
    found = _score(name, values)
    assert np.isfinite([found.score, *found.raw.values()]).all()


@pytest.mark.parametrize("name", SCREENS)
def test_data_that_are_no_images_are_screened_or_left_out(name: str) -> None:
    """Screens that need images or classes give no score for other data; the rest give one."""
    rows = np.random.default_rng(0).random((120, 12)).astype(np.float32)
    found = list_screens()[name].score(view_of(rows * 3, rows), SMALL, 0)
    assert (found is None) == (name in ("gan_discriminator", "kl_classifier", "intra_class_radius"))


def test_equal_distributions_have_no_divergence() -> None:
    """A feature map with the input's own intensities has divergence 0, whatever its scale and order of pixels."""
    grey = photo_tiles(120)[:, :1]
    turned = grey[:, :, ::-1] * 7 - 3
    found = list_screens()["kl_distribution"].score(view_of(turned, grey), SMALL, 0)
    assert found is not None
    # Keeping features as half floats moves some intensities into the next bin.
    assert found.raw["kl_min"] == pytest.approx(0, abs=0.1)
    assert found.score == pytest.approx(1, abs=0.1)


def test_one_telling_channel_is_enough() -> None:
    """The layer's divergence is the minimum over channels: noise beside a telling channel does not hide it."""
    tiles = photo_tiles(120)[:, :1]
    noise = np.random.default_rng(0).normal(size=(120, 3, 16, 16)).astype(np.float32)
    found = list_screens()["kl_distribution"].score(view_of(np.concatenate([noise, tiles], axis=1), tiles), SMALL, 0)
    assert found is not None
    assert found.raw["kl_min"] < 0.1 < found.raw["kl_mean"] < found.raw["kl_max"]


def test_delta_is_divergence_over_the_guess() -> None:
    """The classifier form is the nearest channel's divergence over that of a uniform guess, averaged over items."""
    tiles = photo_tiles(120)
    found = _score("kl_classifier", tiles)
    assert found.raw["delta"] == pytest.approx(found.raw["kl_min"] / found.raw["kl_uniform"])
    truth = _classify(tiles[:8])
    assert found.raw["kl_uniform"] == pytest.approx(
        (np.log(4) + (_classify(tiles[:32]) * np.log(_classify(tiles[:32]))).sum(axis=1)).mean(), rel=1e-4
    )
    assert kl_classifier._divergence(truth, truth) == pytest.approx(0)


def test_the_classifier_rule_wants_delta_above_one_for_good() -> None:
    """DeepEnclave's layer is the earliest from which delta stays above 1; a single excursion does not count."""

    def picked(*deltas: float) -> int | None:
        return kl_classifier.pick([ScreenScore(1 / (1 + delta), {"delta": delta}) for delta in deltas])

    assert picked(0.2, 1.5, 0.8, 1.2, 3.0) == 3
    assert picked(1.1, 1.2) == 0
    assert picked(2.0, 0.9) is None


def test_the_plateau_is_where_the_curve_stays_at_its_minimum() -> None:
    """The talk's rule picks the earliest cut from which the similarity stays within 10 % of the minimum."""
    assert plateau([1.0, 0.6, 0.12, 0.1, 0.11]) == 2
    assert plateau([1.0, 0.1, 0.8, 0.12, 0.1]) == 3
    assert plateau([1.0, 0.5, 0.1]) is None
    assert plateau([0.1, 0.1, 0.9]) is None
    assert plateau([0.4, 0.4]) is None
    assert plateau([]) is None


@given(some.lists(some.floats(0, 1), max_size=12))
def test_a_plateau_is_flat(curve: list[float]) -> None:
    """From the picked cut on the curve stays within the tolerance, and the cut before it does not."""
    index = plateau(curve)
    if index is not None:
        limit = min(curve) + 0.1 * (max(curve) - min(curve))
        assert max(curve[index:]) <= limit
        assert index == 0 or curve[index - 1] > limit
        assert len(curve) - index >= 2


def test_distance_correlation_is_one_with_itself_and_zero_when_independent() -> None:
    """The corrected distance correlation is 1 for the input itself and about 0 for noise, even in high dimension."""
    tiles = photo_tiles(120)
    noise = np.random.default_rng(1).normal(size=(120, 2000)).astype(np.float32)
    itself = list_screens()["distance_correlation"].score(view_of(tiles[:, :1] * 4, tiles[:, :1]), SMALL, 0)
    assert itself is not None
    assert itself.score == pytest.approx(1, abs=1e-3)
    apart = _score("distance_correlation", noise)
    assert apart.score == pytest.approx(0, abs=0.05)
    # Why the corrected statistic is the score: the plain one is far from 0 here.
    assert apart.raw["dcor"] > 0.5


def test_a_screen_repeats_itself() -> None:
    """The trained discriminator gives the same verdict for the same seed."""
    noise = np.random.default_rng(0).normal(size=(120, 2, 8, 8)).astype(np.float32)
    assert _score("gan_discriminator", noise) == _score("gan_discriminator", noise)


def test_rank_correlation_needs_three_cuts_and_variation() -> None:
    """Rank correlation is 1 for the same order, and not stated for two cuts or a constant side."""
    assert rank_correlation([1, 2, 3], [0.1, 0.5, 0.9]) == pytest.approx(1)
    assert rank_correlation([3, 2, 1], [0.1, 0.5, 0.9]) == pytest.approx(-1)
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
    assert rank_correlation([1, 2, 3], [2, 2, 2]) is None
