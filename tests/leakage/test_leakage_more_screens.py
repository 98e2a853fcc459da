"""Independence, Fisher information, intra-class radius, mutual information, and the probe's lower bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from leakage_cases import SMALL, photo_tiles, view_of

from siniantrust.leakage import ScreenScore, list_screens
from siniantrust.leakage._registry import InapplicableError, ScreenView, WhiteBox
from siniantrust.leakage.screens._pairwise import squared_distances, u_centred
from siniantrust.leakage.screens.fisher import NOMINAL_NOISE

ITEMS = 120
Function = Callable[[torch.Tensor], torch.Tensor]


class _Network:
    """A network that is one function; the untrusted side is not needed here."""

    def __init__(self, function: Function) -> None:
        self.function = function

    def features(self, targets: torch.Tensor) -> list[torch.Tensor]:
        return [self.function(targets)]

    def outputs(self, features: list[torch.Tensor]) -> torch.Tensor:
        raise InapplicableError(f"{len(features)} features lead nowhere")


def _white(function: Function) -> ScreenView:
    return replace(view_of(photo_tiles(ITEMS), photo_tiles(ITEMS)), white_box=lambda: _Network(function))


def _run(name: str, view: ScreenView, seed: int = 0) -> ScreenScore:
    found = list_screens()[name].score(view, SMALL, seed)
    assert found is not None
    assert np.isfinite([found.score, *found.raw.values()]).all()
    return found


def _noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _noisy(scale: float) -> np.ndarray:
    return photo_tiles(ITEMS) + scale * _noise(ITEMS, 3, 16, 16)


def test_every_screen_says_its_cost_and_source() -> None:
    """A report can say of every screen what it takes and where it comes from."""
    for name, screen in list_screens().items():
        assert len(screen.cost) > 20, name
        assert len(screen.source) > 20, name


@pytest.mark.parametrize("name", sorted(list_screens()))
def test_tokens_are_left_to_the_radius(name: str) -> None:
    """Token numbers are no quantities: every screen leaves them out but the one that looks at features alone."""
    tokens = np.random.default_rng(0).integers(0, 50, (ITEMS, 9))
    features = view_of(_noise(ITEMS, 9, 4), _noise(ITEMS, 9)).features
    view = ScreenView("token", features, tokens, None, 0, labels=np.arange(ITEMS) % 3)
    found = list_screens()[name].score(view, SMALL, 0)
    assert (found is not None) == (name == "intra_class_radius")


@pytest.mark.parametrize("name", ["hsic", "mutual_information"])
def test_dependence_falls_with_noise(name: str) -> None:
    """The more noise lies over the input, the less dependence is found; noise alone scores about 0."""
    tiles = photo_tiles(ITEMS)
    scores = [_run(name, view_of(_noisy(scale), tiles)).score for scale in (0.0, 0.5, 3.0)]
    assert scores[0] > scores[1] + 0.01 > scores[2] + 0.02
    apart = _run(name, view_of(_noise(ITEMS, 3, 16, 16, seed=5), tiles)).score
    assert apart == pytest.approx(0, abs=0.05)


def test_hsic_is_one_with_itself() -> None:
    """The normalised criterion of the input with itself, moved and rescaled, is 1."""
    tiles = photo_tiles(ITEMS)[:, :1]
    assert _run("hsic", view_of(5 * tiles - 2, tiles)).score == pytest.approx(1, abs=1e-3)


def test_the_unbiased_criterion_is_the_published_formula() -> None:
    """The product of centred kernels is the three terms of Song et al. (2012), equation 5."""
    kernels = [np.exp(-squared_distances(_noise(9, 4, seed=seed)) / 8) for seed in (1, 2)]
    for kernel in kernels:
        np.fill_diagonal(kernel, 0)
    first, second = kernels
    count = 9
    published = (
        np.trace(first @ second)
        + first.sum() * second.sum() / ((count - 1) * (count - 2))
        - 2 / (count - 2) * (first @ second).sum()
    ) / (count * (count - 3))
    ours = (u_centred(first) * u_centred(second)).sum() / (count * (count - 3))
    assert ours == pytest.approx(published)


def test_hsic_averages_to_zero_over_independent_data() -> None:
    """The estimator is unbiased: over many independent draws its mean is within three standard errors of 0."""
    rows = photo_tiles(ITEMS)[:20]
    values = [_run("hsic", view_of(_noise(20, 6, seed=seed), rows)).raw["hsic"] for seed in range(60)]
    assert abs(np.mean(values)) < 3 * np.std(values) / len(values) ** 0.5


def test_fisher_information_is_that_of_the_gaussian() -> None:
    """For features a x + N(0, s²), dFIL is a² / s² and no unbiased attacker has an error below s² / a²."""
    found = _run("fisher", _white(lambda x: 2 * x + 0.5 * torch.randn_like(x)))
    assert found.raw["nominal_noise"] == 0
    assert found.raw["dfil"] == pytest.approx(16, rel=0.1)
    assert found.raw["mse_bound"] == pytest.approx(1 / found.raw["dfil"])
    assert found.score == pytest.approx(math.log10(found.raw["dfil"]))


def test_the_best_unbiased_attacker_obeys_the_bound() -> None:
    """Dividing the noisy feature by its gain is unbiased, and its error is the stated bound and not below."""
    found = _run("fisher", _white(lambda x: 2 * x + 0.5 * torch.randn_like(x)))
    error = float(np.mean((0.5 * 0.5 * _noise(100_000)) ** 2))
    assert error > 0.9 * found.raw["mse_bound"]


def test_deterministic_features_get_a_nominal_noise() -> None:
    """Without noise the information is infinite: it is taken at 1 % of the features' spread, and marked so."""
    tiles = photo_tiles(ITEMS)[:12]
    found = _run("fisher", _white(lambda x: 3 * x))
    assert found.raw["nominal_noise"] == 1
    assert found.raw["dfil"] == pytest.approx(1 / (NOMINAL_NOISE * tiles.std()) ** 2, rel=1e-2)


def test_one_fixed_feature_beside_noise_is_nominal_too() -> None:
    """A single feature without noise voids the bound, whatever lies beside it."""
    noisy: Function = lambda x: torch.cat([x.flatten(1)[:, :1], torch.randn_like(x).flatten(1)], dim=1)  # noqa: E731
    assert _run("fisher", _white(noisy)).raw["nominal_noise"] == 1


def test_fisher_information_of_projections() -> None:
    """The trace is the squared Jacobian over the noise: for a matrix, its squared norm, within sampling error."""
    matrix = torch.as_tensor(_noise(768, 10))
    found = _run("fisher", _white(lambda x: x.flatten(1) @ matrix + torch.randn(len(x), 10)))
    assert found.raw["dfil"] == pytest.approx(float(matrix.square().sum()) / 768, rel=0.3)


@pytest.mark.parametrize("function", [torch.ones_like, torch.randn_like, lambda x: x * 0 + torch.randn_like(x)])
def test_features_without_the_input_have_no_information(function: Function) -> None:
    """Constants and noise alone carry no Fisher information."""
    assert _run("fisher", _white(function)).score == -12


def test_fisher_needs_a_known_network() -> None:
    """Without the network, or with one that has no gradient, there is no score."""
    view = view_of(photo_tiles(ITEMS), photo_tiles(ITEMS))

    def declined() -> WhiteBox:
        raise InapplicableError("no gradient")

    fisher = list_screens()["fisher"]
    assert fisher.score(view, SMALL, 0) is None
    assert fisher.score(replace(view, white_box=declined), SMALL, 0) is None


@pytest.mark.parametrize("name", ["fisher", "hsic", "mutual_information", "ridge_probe"])
def test_the_same_seed_gives_the_same_score(name: str) -> None:
    """A screen repeats itself, and leaves torch's global random numbers where they were."""
    view = replace(
        view_of(_noisy(0.2), photo_tiles(ITEMS)), white_box=_white(lambda x: x + torch.randn_like(x)).white_box
    )
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = _run(name, view)
    assert torch.equal(torch.rand(3), expected)
    assert _run(name, view) == first


def _clouds(spread: float, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return points around the corners of a simplex, sqrt(2) apart, as far as ``spread`` (RMS), and their classes."""
    labels = np.arange(ITEMS) % classes
    points = np.eye(classes, dtype=np.float32)[labels] + spread / classes**0.5 * _noise(ITEMS, classes)
    return points.astype(np.float32), labels


def _radius(values: np.ndarray, labels: np.ndarray | None) -> ScreenScore | None:
    view = replace(view_of(values, photo_tiles(ITEMS)), labels=labels)
    return list_screens()["intra_class_radius"].score(view, SMALL, 0)


@given(some.floats(0.02, 2))
@settings(max_examples=20, deadline=None)
def test_the_radius_is_the_spread_over_the_distance_of_classes(spread: float) -> None:
    """For clouds of root-mean-square radius r around centres b apart the score is r / (r + b), up to sampling."""
    found = _radius(*_clouds(spread))
    assert found is not None
    assert found.score == pytest.approx(spread / (spread + 2**0.5), rel=0.12)
    assert found.raw["classes"] == 4


def test_collapsed_classes_score_zero_and_spread_ones_more() -> None:
    """Features that are the class alone score 0; the more items of a class differ, the higher the score."""
    scores = []
    for spread in (0.0, 0.2, 1.0, 5.0):
        found = _radius(*_clouds(spread))
        assert found is not None
        scores.append(found.score)
    assert scores[0] == pytest.approx(0, abs=1e-3)
    assert scores == sorted(scores)
    assert scores[-1] > 0.7


def test_classes_come_from_the_classifier_where_there_are_no_labels() -> None:
    """Without labels the model's own prediction says which items belong together; without either there is no score."""
    values, labels = _clouds(0.3)
    answers = np.eye(4)[labels]
    view = view_of(values, photo_tiles(ITEMS), classify=lambda images: answers[: len(images)])
    assert _run("intra_class_radius", view) == _radius(values, labels)
    assert _radius(values, None) is None


def test_one_class_has_no_radius() -> None:
    """A single class, or classes of one item each, cannot be compared."""
    values = _clouds(0.3)[0]
    assert _radius(values, np.zeros(ITEMS, dtype=int)) is None
    assert _radius(values, np.arange(ITEMS)) is None


def test_information_is_at_least_nothing_and_at_most_all_items() -> None:
    """The bound is never negative and never above the logarithm of the items that the critic chooses among."""
    tiles = photo_tiles(ITEMS)
    for values in (tiles, _noise(ITEMS, 40), np.ones((ITEMS, 5), dtype=np.float32)):
        found = _run("mutual_information", view_of(values, tiles))
        assert 0 <= found.raw["information_nats"] <= found.raw["largest_nats"] == pytest.approx(math.log(60))


def test_information_stays_below_that_of_the_gaussian_channel() -> None:
    """Where the information is known, ln(1 + power / noise) / 2 for each independent number, the bound is below it."""
    rows = _noise(ITEMS, 3)
    for noise in (0.5, 1.0, 2.0):
        true = 3 * 0.5 * math.log(1 + 1 / noise**2)
        found = np.mean(
            [
                _run("mutual_information", view_of(rows + noise * _noise(ITEMS, 3, seed=s), rows)).score
                for s in range(9, 17)
            ]
        )
        assert 0.4 * true < found < true * 1.05


def test_the_probe_bounds_what_surely_leaks() -> None:
    """On the input itself the lower bounds are high, and they lie below the leakage that the probe itself has."""
    found = _run("ridge_probe", view_of(photo_tiles(ITEMS), photo_tiles(ITEMS)))
    assert found.raw["gallery"] == ITEMS
    assert 0.6 < found.raw["reidentification_lower"] < 1
    assert 0.4 < found.raw["ssim_lower"] < 1


@pytest.mark.parametrize("seed", range(4))
def test_the_probe_proves_nothing_of_noise(seed: int) -> None:
    """Noise alone has no lower bound above 0, at which a sound cut would be refused."""
    found = _run("ridge_probe", view_of(_noise(ITEMS, 300, seed=seed), photo_tiles(ITEMS)))
    assert found.raw["reidentification_lower"] <= 0
    assert found.raw["ssim_lower"] <= 0


def test_the_probe_gallery_holds_all_items() -> None:
    """Queries are looked for among fitted items too: a probe that only says which quarter it is in proves little."""
    tiles = photo_tiles(ITEMS)
    few = _run("ridge_probe", view_of(tiles[:, :, ::8, ::8].reshape(ITEMS, -1)[:, :2], tiles))
    assert few.raw["reidentification_lower"] < 0.1


def test_ssim_needs_an_image() -> None:
    """Rows of numbers have no structural similarity, hence no bound on it."""
    rows = np.random.default_rng(0).random((ITEMS, 12)).astype(np.float32)
    found = _run("ridge_probe", view_of(rows * 3, rows))
    assert "ssim_lower" not in found.raw
    assert found.raw["reidentification_lower"] > 0.8
